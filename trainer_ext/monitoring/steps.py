"""Figures of the denoising steps that are trained: they are recorded for each log, and kept out of it."""

from __future__ import annotations

from collections.abc import Mapping

from ddpo_plugins.names import STEPS

from ..config import DDPOConfig
from ..loop.describing import describing
from ..runs.folder import RunFolder
from ..runs.records import write_records


def record_steps(args: DDPOConfig, updates: int, metrics: Mapping[str, float]) -> dict[str, float]:
    """
    Record the figures of denoising steps since the last log.

    Args:
        args ([`DDPOConfig`]):
            The run's options; only the main process writes.
        updates (`int`):
            Optimizer updates so far.
        metrics (`Mapping[str, float]`):
            Metrics; those that begin with `steps/` and the number of a step are recorded.

    Returns:
        `dict[str, float]`: the others.
    """
    rows: dict[int, dict[str, float]] = {}
    for name, value in metrics.items():
        if name.startswith(STEPS):
            step, _, measure = name.removeprefix(STEPS).partition("/")
            rows.setdefault(int(step), {})[measure] = value
    if rows and args.process_index == 0:
        moment = {"updates": updates, "rollouts": updates / args.updates_per_rollout}
        with describing("The record of denoising steps"):
            records = [{**moment, "step": step, **figures} for step, figures in sorted(rows.items())]
            write_records(RunFolder(args.folder).step_file(updates), records)
    return {name: value for name, value in metrics.items() if not name.startswith(STEPS)}
