"""The result of a run, computed from its folder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..types import FloatArray
from .folder import RunFolder, SampleSheet
from .records import Record

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedFigure:
    """
    The reward of fixed prompts and seeds before and after training: each image is compared with itself.

    Parameters:
        before, after (`float`):
            Mean rewards.
        low, high (`float`):
            Student's 95 % interval of the mean difference; NaN for a single pair.
        n (`int`):
            Number of pairs in which both images have a reward.
    """

    before: float
    after: float
    low: float
    high: float
    n: int

    @property
    def difference(self) -> float:
        """Mean of after - before."""
        return self.after - self.before

    def __str__(self) -> str:
        relative = f" ({self.difference / abs(self.before):+.1%})" if self.before else ""
        interval = f"95 % interval {self.low:+.4g} to {self.high:+.4g}, " if self.n > 1 else ""
        return (
            f"{self.before:.4g} -> {self.after:.4g}{relative}; difference {self.difference:+.4g}, {interval}"
            f"n = {self.n}, same prompts and seeds"
        )


@dataclass(frozen=True)
class RunSummary:
    """
    The result of a run. A field is `None` until it is measured.

    Parameters:
        updates (`int`, *optional*):
            Optimizer updates when the fixed samples were last drawn.
        paired ([`PairedFigure`], *optional*):
            The fixed samples' reward before and after training.
        paired_by_default ([`PairedFigure`], *optional*):
            The same with the base's own scheduler at its default steps and guidance; see `sample_defaults` of [`DDPOConfig`].
        first_rollout, last_rollout (`float`, *optional*):
            Mean rewards of these rollouts. Their prompts differ, so their difference does not measure what was learned.
        verdict (`str`, *optional*):
            Whether the reward was over-optimised.
        evidence (`Mapping[str, Any]`, *optional*):
            The facts behind the verdict.
        chosen_checkpoint (`Path`, *optional*):
            The checkpoint to use.
    """

    updates: int | None = None
    paired: PairedFigure | None = None
    paired_by_default: PairedFigure | None = None
    first_rollout: float | None = None
    last_rollout: float | None = None
    verdict: str | None = None
    evidence: Mapping[str, Any] | None = None
    chosen_checkpoint: Path | None = None

    @classmethod
    def of(cls, folder: RunFolder) -> RunSummary:
        """Read a run's folder."""
        sheets = folder.samples()
        defaults = folder.default_samples()
        means = [float(rewards.mean()) for rewards in folder.rewards().values() if len(rewards)]
        return cls(
            updates=sheets[-1].updates if sheets else None,
            paired=_paired_sheets(sheets[0], sheets[-1]) if sheets else None,
            paired_by_default=_paired_records(defaults[0], defaults[-1]) if len(defaults) > 1 else None,
            first_rollout=means[0] if means else None,
            last_rollout=means[-1] if means else None,
        )


def _paired_sheets(first: SampleSheet, last: SampleSheet) -> PairedFigure | None:
    """Compare the base model with the trained one, image by image."""
    if first.updates != 0 or last.updates == 0:
        return None
    return _paired_records(first.records, last.records)


def _paired_records(first: Sequence[Record], last: Sequence[Record]) -> PairedFigure | None:
    before, after = ({(r["seed"], r["prompt"]): r["reward"] for r in records} for records in (first, last))
    pairs = [(before[key], after[key]) for key in before if before[key] is not None and after.get(key) is not None]
    return paired_figure(np.array(pairs, np.float64)) if pairs else None


def paired_figure(pairs: FloatArray) -> PairedFigure:
    """Compare rewards before and after, `(n, 2)`."""
    from scipy import stats  # half a second, only when there is something to summarise

    before, after = pairs.T
    difference = after - before
    low = high = float(difference.mean()) if len(pairs) > 1 else float("nan")
    if np.ptp(difference) > 0:
        interval = stats.ttest_1samp(difference, 0.0).confidence_interval(CONFIDENCE)
        low, high = float(interval.low), float(interval.high)
    return PairedFigure(float(before.mean()), float(after.mean()), low, high, len(pairs))
