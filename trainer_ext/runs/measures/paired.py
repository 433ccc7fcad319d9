"""Figures that compare images with themselves, before and after training, and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...types import FloatArray
from ..records import Record
from .formulas import column, matched

CONFIDENCE = 0.95
RESAMPLES = 2000  #: of a bootstrap


@dataclass(frozen=True)
class PairedFigure:
    """
    The reward of fixed prompts and seeds before and after training: each image is compared with itself.

    Parameters:
        before, after (`float`):
            Mean rewards.
        low, high (`float`):
            95 % interval of the mean difference, Student's or a bootstrap's; NaN for a single pair.
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


def paired_columns(first: Sequence[Record], last: Sequence[Record], name: str) -> FloatArray:
    """Return the values of a column before and after, `(n, 2)`, of the images that have one in both."""
    after, before = matched(last, first)
    pairs = np.stack([column(before, name), column(after, name)], axis=1)
    return pairs[~np.isnan(pairs).any(axis=1)]


def paired_figure(pairs: FloatArray) -> PairedFigure:
    """Compare rewards before and after, `(n, 2)`, with Student's interval."""
    return _figure(pairs, student_interval)


def bootstrapped_figure(pairs: FloatArray) -> PairedFigure:
    """Compare values before and after, `(n, 2)`, with the interval of a paired bootstrap."""
    return _figure(pairs, bootstrap_interval)


def _figure(pairs: FloatArray, interval: Callable[[FloatArray], tuple[float, float]]) -> PairedFigure:
    before, after = pairs.T
    return PairedFigure(float(before.mean()), float(after.mean()), *interval(after - before), len(pairs))


def student_interval(values: FloatArray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Student's interval of the mean of `values` `(n,)`; NaN for a single one."""
    from scipy import special  # light, unlike scipy.stats

    if len(values) < 2:
        return _without_spread(values)
    margin = special.stdtrit(len(values) - 1, (1 + confidence) / 2) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - margin), float(values.mean() + margin)


def bootstrap_interval(values: FloatArray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """
    Return the interval of the mean of `values` `(n,)` from resamples, the same ones each time; NaN for a single value.

    It reaches as far as Student's, for the resamples of few values are too much alike: those of two never leave their range.
    """
    from scipy import stats

    if len(values) < 2 or np.ptp(values) == 0:
        return _without_spread(values)
    resampled = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval, (low, high) = resampled.confidence_interval, student_interval(values, confidence)
    return min(float(interval.low), low), max(float(interval.high), high)


def _without_spread(values: FloatArray) -> tuple[float, float]:
    edge = float(values.mean()) if len(values) > 1 else float("nan")
    return edge, edge
