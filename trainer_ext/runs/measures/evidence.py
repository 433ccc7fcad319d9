"""The evidence for a verdict: changes with their intervals, from the evaluations of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ddpo_plugins.names import DETECTORS, REWARDS

from ..drawings import Evaluation
from ..records import Record
from .changes import MIN_PAIRS, Change
from .formulas import collapsed, column, disagreement, gold_changes, matched, mean
from .paired import CONFIDENCE, PairedFigure, bootstrapped_figure, paired_columns


@dataclass(frozen=True)
class Evidence:
    """
    What the evaluations of a run say.

    Parameters:
        updates (`Sequence[int]` of length E):
            Updates of each evaluation; the first is 0.
        records (`Sequence[Sequence[Record]]` of length E):
            The records of each, of the same images.
        columns (`Sequence[str]`):
            Columns of the held-out rewards.
        alternatives (`int`, *optional*, defaults to `1`):
            Number of rewards of which this is the evidence of one: intervals allow for the choice among them (Bonferroni).
    """

    updates: Sequence[int]
    records: Sequence[Sequence[Record]]
    columns: Sequence[str]
    alternatives: int = 1

    @classmethod
    def of(cls, evaluations: Sequence[Evaluation], held_out: Sequence[str]) -> Evidence:
        """Collect the evidence of evaluations, of which the first is that of the model before training."""
        return cls([each.updates for each in evaluations], [each.records for each in evaluations], held_out)

    @cached_property
    def parts(self) -> list[Evidence]:
        """The evidence of all held-out rewards together, and of each alone if there are several and enough images have it."""
        count = len(self.columns)
        alone = [replace(self, columns=[name], alternatives=count) for name in self.columns] if count > 1 else []
        return [self, *(part for part in alone if part.gold.n >= MIN_PAIRS)]

    @property
    def held_out(self) -> str:
        """Names of the held-out rewards."""
        return ", ".join(name.removeprefix(REWARDS) for name in self.columns)

    @cached_property
    def trained(self) -> PairedFigure:
        """The trained reward before training, and in the last evaluation."""
        return bootstrapped_figure(paired_columns(self.records[0], self.records[-1], "reward"))

    @property
    def spread(self) -> float:
        """Standard deviation of the trained reward before training."""
        return float(np.nanstd(column(self.records[0], "reward")))

    @property
    def title(self) -> str:
        """What the held-out rewards are called in a sentence."""
        return (
            f"the held-out rewards ({self.held_out})"
            if self.alternatives == 1
            else f"the held-out reward {self.held_out}"
        )

    @cached_property
    def golds(self) -> list[float]:
        """Mean change of the held-out rewards in each evaluation since before training; NaN where too few images have one."""
        each = [gold_changes(self.records[0], self.records[0], records, self.columns) for records in self.records]
        return [float(values.mean()) if len(values) >= MIN_PAIRS else float("nan") for values in each]

    @property
    def peak(self) -> int:
        """Index of the evaluation with the highest held-out rewards."""
        return int(np.nanargmax(self.golds))

    @cached_property
    def gold(self) -> Change:
        """The change since before training, with its 95 % interval."""
        return self._change(0, choices=1)

    @cached_property
    def since_peak(self) -> Change:
        """The change since the peak, with an interval that allows for its choice among all evaluations (Bonferroni)."""
        return self._change(self.peak, choices=len(self.records))

    def _change(self, index: int, choices: int) -> Change:
        values = gold_changes(self.records[0], self.records[index], self.records[-1], self.columns)
        return Change.of(self.updates[index], values, 1 - (1 - CONFIDENCE) / (choices * self.alternatives))

    @cached_property
    def collapsed(self) -> list[float | None]:
        """Share of collapsed prompts in each evaluation."""
        return [collapsed(*matched(records, self.records[0])) for records in self.records]

    @cached_property
    def detections(self) -> Mapping[str, PairedFigure]:
        """Each detector before training and in the last evaluation, by name, if it judged enough images in both."""
        names = [name for name in self.records[0][0] if name.startswith(DETECTORS)]
        pairs = {
            name.removeprefix(DETECTORS): paired_columns(self.records[0], self.records[-1], name) for name in names
        }
        return {name: bootstrapped_figure(values) for name, values in pairs.items() if len(values) >= MIN_PAIRS}

    def rises(self, name: str) -> list[float]:
        """
        Return how far a detector's mean has risen since before training, in each evaluation, over the images that it judged in
        both; 0 where there are none.
        """
        each = [paired_columns(self.records[0], records, f"{DETECTORS}{name}").T for records in self.records]
        return [float(after.mean() - before.mean()) if len(after) else 0.0 for before, after in each]

    @cached_property
    def numbers(self) -> Mapping[str, float]:
        """The figures that rules compare, by name."""
        unsure = disagreement(*matched(self.records[-1], self.records[0]), self.columns)
        kl = mean(column(self.records[-1], "kl"))
        found = {
            "change of the trained reward": self.trained.difference,
            "its interval, from": self.trained.low,
            "its interval, to": self.trained.high,
            "change of the held-out rewards, in standard deviations": self.gold.difference,
            "their interval, from": self.gold.low,
            "their interval, to": self.gold.high,
            "change of the held-out rewards since their peak": self.since_peak.difference,
            **{f"change of {part.title}, in standard deviations": part.gold.difference for part in self.parts[1:]},
            "disagreement": unsure,
            "KL to the model before training, in nats an image": kl,
            "share of collapsed prompts": self.collapsed[-1],
            **{f"change of the detector {name}": figure.difference for name, figure in self.detections.items()},
            "images": float(self.gold.n),
        }
        return {name: value for name, value in found.items() if value is not None}

    def first_update(self, holding: Sequence[bool]) -> int:
        """Return the updates of the first evaluation from which on a condition holds in all; of the last, if it never does."""
        last_without = max((index for index, holds in enumerate(holding) if not holds), default=0)
        return self.updates[min(last_without + 1, len(self.updates) - 1)]

    def choice(self, kept: Collection[int], before: int | None = None) -> tuple[int, int | None]:
        """
        Choose by the held-out rewards, among the evaluations after training began and before the update `before`.

        Returns:
            `tuple[int, int | None]`: the updates of the best, and of the best whose weights are `kept` (None if there are none).
            Both are 0, for the model before training, if there is no such evaluation.
        """
        later = [i for i, updates in enumerate(self.updates) if updates and (before is None or updates < before)]
        if not later:
            return 0, 0
        there = [i for i in later if self.updates[i] in kept]
        return self.updates[self._best(later)], self.updates[self._best(there)] if there else None

    def _best(self, candidates: Sequence[int]) -> int:
        return max(candidates, key=lambda index: np.nan_to_num(self.golds[index], nan=-np.inf))
