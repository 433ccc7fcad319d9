"""Changes of the held-out rewards between two evaluations, each image compared with itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...types import FloatArray
from .paired import bootstrap_interval

MIN_PAIRS = 10  #: images below which an interval says too little to judge by


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
            Interval of the mean, by a paired bootstrap; NaN where there are fewer than [`MIN_PAIRS`] images, so that no rule
            holds.
        n (`int`):
            Number of images.
    """

    since: int
    difference: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, since: int, values: FloatArray, confidence: float) -> Change:
        """Return the change since an evaluation, of the changes of each image `(n,)`."""
        if len(values) < MIN_PAIRS:
            return cls(since, np.nan, np.nan, np.nan, len(values))
        return cls(since, float(values.mean()), *bootstrap_interval(values, confidence), len(values))

    def __str__(self) -> str:
        return f"{self.difference:+.2f} standard deviations ({self.low:+.2f} to {self.high:+.2f}, n = {self.n})"
