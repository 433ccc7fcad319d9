"""The evidence for a verdict: changes with their intervals, from the evaluations of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ddpo_plugins.names import DETECTORS, REWARDS

from ...types import FloatArray
from ..folder import Evaluation
from ..records import Record
from .formulas import collapsed, column, disagreement, gold, matched, mean, standardised
from .paired import CONFIDENCE, PairedFigure, bootstrap_interval, bootstrapped_figure, paired_columns

MIN_PAIRS = 2


@dataclass(frozen=True)
class Change:
    """
    The change of the held-out rewards of each image since an earlier evaluation, in standard deviations of the base's images.

    Parameters:
        since (`int`):
            Updates of the earlier evaluation.
        difference (`float`):
            Mean change.
        low, high (`float`):
            Interval of the mean, by a paired bootstrap.
        n (`int`):
            Number of images.
    """

    since: int
    difference: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.difference:+.2f} standard deviations ({self.low:+.2f} to {self.high:+.2f}, n = {self.n})"


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
    """

    updates: Sequence[int]
    records: Sequence[Sequence[Record]]
    columns: Sequence[str]

    @classmethod
    def of(cls, evaluations: Sequence[Evaluation], held_out: Sequence[str]) -> Evidence:
        """Collect the evidence of evaluations, of which the first is that of the model before training."""
        return cls([each.updates for each in evaluations], [each.records for each in evaluations], held_out)

    @staticmethod
    def can_be_of(evaluations: Sequence[Evaluation], held_out: Sequence[str]) -> bool:
        """Return whether the first evaluation and the last have enough rewards, and held-out ones that tell images apart."""
        base, last = evaluations[0].records, evaluations[-1].records
        pairs = paired_columns(base, last, "reward")
        golds = _changes(base, base, last, held_out)
        return len(pairs) >= MIN_PAIRS and len(golds) >= MIN_PAIRS

    @property
    def held_out(self) -> str:
        """Names of the held-out rewards."""
        return ", ".join(name.removeprefix(REWARDS) for name in self.columns)

    @cached_property
    def trained(self) -> PairedFigure:
        """The trained reward before training, and in the last evaluation."""
        return bootstrapped_figure(paired_columns(self.records[0], self.records[-1], "reward"))

    @cached_property
    def golds(self) -> list[float]:
        """The held-out rewards of each evaluation: see [`gold`]."""
        values = [gold(*matched(records, self.records[0]), self.columns) for records in self.records]
        return [float("nan") if value is None else value for value in values]

    @property
    def peak(self) -> int:
        """Index of the evaluation with the highest held-out rewards."""
        return int(np.nanargmax(self.golds))

    @cached_property
    def gold(self) -> Change:
        """The change since before training, with its 95 % interval."""
        return self._change(0, CONFIDENCE)

    @cached_property
    def since_peak(self) -> Change:
        """The change since the peak, with an interval that allows for its choice among all evaluations (Bonferroni)."""
        return self._change(self.peak, 1 - (1 - CONFIDENCE) / len(self.records))

    def _change(self, index: int, confidence: float) -> Change:
        values = _changes(self.records[0], self.records[index], self.records[-1], self.columns)
        low, high = bootstrap_interval(values, confidence)
        return Change(self.updates[index], float(values.mean()), low, high, len(values))

    @cached_property
    def collapsed(self) -> list[float | None]:
        """Share of collapsed prompts in each evaluation."""
        return [collapsed(*matched(records, self.records[0])) for records in self.records]

    @cached_property
    def detections(self) -> Mapping[str, PairedFigure]:
        """Each detector before training and in the last evaluation, by name."""
        names = [name for name in self.records[0][0] if name.startswith(DETECTORS)]
        pairs = {
            name.removeprefix(DETECTORS): paired_columns(self.records[0], self.records[-1], name) for name in names
        }
        return {name: bootstrapped_figure(values) for name, values in pairs.items() if len(values)}

    def rises(self, name: str) -> list[float]:
        """Return how far a detector's mean has risen since before training, in each evaluation; 0 where it judged no image."""
        means = [mean(column(records, f"{DETECTORS}{name}")) for records in self.records]
        return [0.0 if value is None or means[0] is None else value - means[0] for value in means]

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
            "disagreement": unsure,
            "KL to the model before training, in nats an image": kl,
            "share of collapsed prompts": self.collapsed[-1],
            **{f"change of the detector {name}": figure.difference for name, figure in self.detections.items()},
            "images": float(self.gold.n),
        }
        return {name: value for name, value in found.items() if value is not None}

    def first_update(self, holding: Sequence[bool]) -> int:
        """Return the updates of the first evaluation from which on a condition holds in all; it holds in the last."""
        last_without = max((index for index, holds in enumerate(holding) if not holds), default=0)
        return self.updates[last_without + 1]

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


def _changes(
    base: Sequence[Record], first: Sequence[Record], last: Sequence[Record], columns: Sequence[str]
) -> FloatArray:
    """Return the mean change over held-out rewards of each image `(n,)` that has one, in the base's standard deviations."""
    after, before = matched(last, first)
    changes = standardised(after, base, columns) - standardised(before, base, columns)
    present = ~np.isnan(changes)
    kept = present.any(axis=1)
    return np.where(present, changes, 0.0)[kept].sum(axis=1) / present[kept].sum(axis=1)
