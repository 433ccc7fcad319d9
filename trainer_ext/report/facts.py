"""What a report says of a run, read once from its folder. What cannot be read is missing, and the page says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..runs.folder import RunFolder
from ..runs.measures.phases import never_trained
from ..runs.summary import RunSummary
from ..types import FloatArray
from .moments import IDENTITY, Moment, moments_of

FIXED_SAMPLES = "fixed samples"  #: stands for a dataset's name where a run has no evaluations

UNREADABLE = "Not judged: run.json, which says what was trained, is missing or cannot be read."
BEGUN = "Not judged: the run has only begun."

#: Entries of a setup that pages show; old versions did not record all of them.
EMPTY_SETUP: Mapping[str, Any] = {
    "from_update": 0,
    "date": "at an unknown time",
    "command": "unknown",
    "model": "",
    "pipeline": "an unknown pipeline",
    "algorithm": "an unknown algorithm",
    "options": {},
    "rewards": {},
    "detectors": {},
    "eval_rewards": {},
    "processes": 1,
    "device": "an unknown device",
}


@dataclass(frozen=True)
class RunFacts:
    """
    A run, for those who look at it.

    Parameters:
        folder ([`RunFolder`]):
            The run's folder.
    """

    folder: RunFolder

    @classmethod
    def read(cls, path: Path) -> RunFacts:
        """
        Return the facts of the run in a folder.

        Raises:
            [`ConfigError`]: the folder holds no run.
        """
        facts = cls(RunFolder(path))
        if not path.is_dir():
            raise ConfigError(f"{path} is no folder; give the output folder of a run.")
        if not (facts.setups or facts.records or facts.moments or facts.folder.checkpoints()):
            raise ConfigError(
                f"{path} holds no run: neither run.json nor rollouts, evaluations, samples or checkpoints. Give the "
                "--output_dir of a training."
            )
        return facts

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.path.resolve().name

    @property
    def identity(self) -> str:
        """What tells this run from others, wherever its folder is."""
        return json.dumps([self.setups[:1], sorted(self.moments)], sort_keys=True)

    @cached_property
    def setups(self) -> list[dict[str, Any]]:
        """The setups of the run, with empty entries for those that are missing; none where run.json is missing or damaged."""
        try:
            return [{**EMPTY_SETUP, **setup} for setup in self.folder.setups()]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    @property
    def setup(self) -> Mapping[str, Any]:
        """The newest setup; empty where there is none."""
        return self.setups[-1] if self.setups else {}

    @cached_property
    def summary(self) -> RunSummary:
        """The result, with the verdict; empty where run.json, which says what was trained, cannot be read."""
        return RunSummary.of(self.folder) if self.setups else RunSummary()

    @property
    def sentence(self) -> str:
        """The verdict in words, or why there is none."""
        if self.summary.verdict is None:
            return BEGUN if self.setups else UNREADABLE
        return self.summary.verdict.sentence

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The record of each image that was trained on."""
        return [record for record in self.folder.records() if {"rollout", *IDENTITY} <= record.keys()]

    @cached_property
    def logs(self) -> list[dict[str, Any]]:
        """The logs up to the newest checkpoint; none where there is no checkpoint."""
        try:
            return self.folder.logs()
        except (OSError, ValueError, KeyError):
            return []

    @cached_property
    def steps(self) -> list[dict[str, Any]]:
        """The figures of each denoising step at each log, the earliest first."""
        return [row for rows in self.folder.steps() for row in rows if {"rollouts", "step"} <= row.keys()]

    @cached_property
    def evaluations(self) -> dict[str, list[Moment]]:
        """The evaluations of each dataset, the earliest first."""
        return moments_of(self.folder.evaluations())

    @cached_property
    def moments(self) -> dict[str, list[Moment]]:
        """The evaluations; where there are none, the fixed samples."""
        return self.evaluations or moments_of({FIXED_SAMPLES: self.folder.samples()})

    @cached_property
    def trained_prompts(self) -> frozenset[str]:
        """The prompts that were trained on."""
        return frozenset(record["prompt"] for record in self.records)

    @property
    def held_out(self) -> list[str]:
        """Columns of the rewards that were never trained on."""
        return never_trained(self.setups)

    @property
    def detectors(self) -> list[str]:
        """Names of the detectors."""
        return list(self.setup.get("detectors", {}))

    @property
    def chosen(self) -> int | None:
        """Updates before the evaluation that the verdict chose; `None` without a verdict."""
        return None if self.summary.verdict is None else self.summary.verdict.chosen

    @cached_property
    def by_rollout(self) -> dict[int, list[dict[str, Any]]]:
        """The records of each rollout by its index."""
        rollouts: dict[int, list[dict[str, Any]]] = {}
        for record in self.records:
            rollouts.setdefault(record["rollout"], []).append(record)
        return dict(sorted(rollouts.items()))

    @cached_property
    def rewards(self) -> dict[int, FloatArray]:
        """The rewards of each rollout `(B,)` by its index; NaN where there is none."""
        return {
            index: np.array([record["reward"] for record in records], np.float64)
            for index, records in self.by_rollout.items()
        }

    def queries(self, rollouts: float) -> float:
        """Return the number of images that were scored for training in so many rollouts."""
        counts = [len(rewards) for rewards in self.rewards.values()]
        if not counts:
            return rollouts
        return float(np.interp(rollouts, np.arange(len(counts) + 1), np.cumsum([0, *counts])))
