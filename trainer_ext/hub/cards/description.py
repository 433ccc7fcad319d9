"""What the cards on the Hub say of a run: the values for their templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ...options import DDPOOptions, TrainerDefaults, default_of
from .base import Base
from .results import Results

SAMPLING = (
    "num_inference_steps",
    "guidance_scale",
    "sampler",
    "eta",
    "noise_level",
)  #: options of sampling, first on a card
NOISE = {
    "ddim": "eta",
    "own": None,
}  #: by sampler, the option that weighs its noise; for all others it is `noise_level`
DEFAULTS = {item.name: default_of(item) for options in (TrainerDefaults, DDPOOptions) for item in fields(options)}


def describe(results: Results, base: Base) -> dict[str, Any]:
    """
    Describe a run for the templates of cards.

    Args:
        results ([`Results`]):
            The run.
        base ([`Base`]):
            The pipeline that it trained.
    """
    setup = results.setup
    options = {**DEFAULTS, **setup["options"]}
    return {
        "base": base,
        "setup": setup,
        "resumed": len(results.setups) - 1,
        "command": results.setups[0]["command"],
        "summary": results.summary,
        "pairs": results.pairs,
        "options": options,
        "call_kwargs": _call_kwargs(options["pipeline_kwargs"]),
        "sampling": _sampling(setup, options),
        "learning": {name: value for name, value in setup["options"].items() if name not in (*SAMPLING, "seed")},
        "detectors": _detections(results),
        "rollouts": len(results.folder.rollouts()),
    }


def _sampling(setup: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of sampling that had an effect, with the sampler that the scheduler got where none was asked for."""
    values = {**options, "sampler": setup.get("sampler", options["sampler"])}
    noise = NOISE.get(values["sampler"], "noise_level")
    names = (name for name in SAMPLING if name == noise or name not in ("eta", "noise_level"))
    return {name: values[name] for name in names if values[name] is not None}


def _call_kwargs(given: Any) -> dict[str, Any]:
    """Return the additional arguments of the pipeline's calls that can be written as Python, such as `height`."""
    kwargs = given if isinstance(given, dict) else {}
    return {name: value for name, value in kwargs.items() if name.isidentifier()}


def _detections(results: Results) -> dict[str, list[float | None]]:
    """Return the mean of each detector over the first and over the last rollout, by name."""
    rollouts = results.folder.rollouts()
    ends = [results.folder.records(index) for index in (rollouts[0], rollouts[-1])] if rollouts else []
    return {name: [_mean(records, f"detectors/{name}") for records in ends] for name in results.setup["detectors"]}


def _mean(records: list[dict[str, Any]], column: str) -> float | None:
    values = [record[column] for record in records if record.get(column) is not None]
    return sum(values) / len(values) if values else None
