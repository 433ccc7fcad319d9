"""What a cheat pays: paired differences of rewards, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import FloatArray
from .cheats import CHEATS

#: Of all cheats together (Bonferroni): a reward that nothing games is called gamed in at most 5 % of audits.
CONFIDENCE = 1 - 0.05 / len(CHEATS)


@dataclass(frozen=True)
class Payment:
    """
    What a cheat pays: its reward minus that of the honest picture, prompt by prompt.

    Parameters:
        reward, difference (`float`):
            Mean reward, and mean difference from the honest pictures.
        low, high (`float`):
            Student's interval of the mean difference, at the level [`CONFIDENCE`]; infinite for a single prompt.
        in_std (`float`):
            The difference in standard deviations of the honest pictures' rewards; infinite if these are all the same.
        n (`int`):
            Number of prompts for which both pictures have a reward. The figures are NaN if it is 0.
    """

    reward: float
    difference: float
    low: float
    high: float
    in_std: float
    n: int

    @property
    def pays(self) -> bool:
        """Whether the cheat has a higher reward than the honest picture, beyond chance."""
        return self.low > 0

    @property
    def costs(self) -> bool:
        """Whether it has a lower one, beyond chance."""
        return self.high < 0

    def __str__(self) -> str:
        return f"{self.difference:+.3g} ({self.low:+.3g} to {self.high:+.3g})"


def payment(honest: FloatArray, cheated: FloatArray) -> Payment:
    """Compare the rewards `(N,)` of a cheat with those of the honest pictures of the same prompts."""
    both = ~np.isnan(honest) & ~np.isnan(cheated)
    difference = (cheated - honest)[both]
    if not len(difference):
        return Payment(np.nan, np.nan, np.nan, np.nan, np.nan, 0)
    mean = float(difference.mean())
    low, high = _interval(difference)
    std = float(honest[both].std())
    in_std = mean / std if std > 0 else float(np.copysign(np.inf, mean)) if mean else 0.0
    return Payment(float(cheated[both].mean()), mean, low, high, in_std, len(difference))


def _interval(difference: FloatArray) -> tuple[float, float]:
    from scipy import stats  # half a second

    if len(difference) < 2:
        return -float("inf"), float("inf")
    if np.ptp(difference) == 0:
        return float(difference[0]), float(difference[0])
    interval = stats.ttest_1samp(difference, 0.0).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


def largest_difference(first: FloatArray, second: FloatArray) -> float:
    """Return the largest absolute difference of two rewards of the same picture; infinite where only one has a reward."""
    if not np.array_equal(np.isnan(first), np.isnan(second)):
        return float("inf")
    return float(np.nanmax(np.abs(first - second), initial=0.0))
