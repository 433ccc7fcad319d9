"""What rewards and detectors say about a batch of images, and how batches and suites are joined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddpo_plugins.names import DETECTORS, REWARDS

from ..types import FloatArray


@dataclass(frozen=True)
class Scores:
    """
    The rewards of B images.

    Parameters:
        names (`tuple[str, ...]` of length K):
            Names of the reward functions.
        values (`np.ndarray` of shape `(B, K)`, float64):
            NaN where a function gave no reward.
        total (`np.ndarray` of shape `(B,)`, float64):
            Weighted sum, with detectors that have a weight; NaN where no function gave a reward.
        extras (`Mapping[str, list]`):
            Values that rewards and detectors logged for each image, by name.
        metrics (`Mapping[str, float]`):
            Numbers that they logged about the batch, by name.
        detections (`Mapping[str, np.ndarray]` of shape `(B,)`, float64):
            Values of each detector, by name; NaN where it could not judge the image.
    """

    names: tuple[str, ...]
    values: FloatArray
    total: FloatArray
    extras: Mapping[str, list[Any]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    detections: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean of the totals; NaN if no image has a reward."""
        rewarded = self.total[~np.isnan(self.total)]
        return float(rewarded.mean()) if len(rewarded) else math.nan

    @property
    def by_record_name(self) -> dict[str, FloatArray]:
        """Rewards and detections `(B,)`, by their column in the records."""
        rewards = {f"{REWARDS}{name}": values for name, values in zip(self.names, self.values.T, strict=True)}
        return rewards | {f"{DETECTORS}{name}": values for name, values in self.detections.items()}

    @staticmethod
    def concatenate(parts: Sequence[Scores]) -> Scores:
        """Join the batches of one rollout: metrics are averaged; extras are `None` where a batch logged none."""
        extras = {
            name: [value for part in parts for value in part.extras.get(name, [None] * len(part.total))]
            for name in dict.fromkeys(name for part in parts for name in part.extras)
        }
        metrics = {
            name: float(np.mean([part.metrics[name] for part in parts if name in part.metrics]))
            for name in dict.fromkeys(name for part in parts for name in part.metrics)
        }
        detections = {name: np.concatenate([p.detections[name] for p in parts]) for name in parts[0].detections}
        values, total = np.concatenate([p.values for p in parts]), np.concatenate([p.total for p in parts])
        return Scores(parts[0].names, values, total, extras, metrics, detections)

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        """Join what several suites say about the same images. The total is the first one's; so is a value that two logged."""
        extras = {name: values for part in reversed(parts) for name, values in part.extras.items()}
        metrics = {name: value for part in reversed(parts) for name, value in part.metrics.items()}
        detections = {name: values for part in parts for name, values in part.detections.items()}
        names = tuple(name for part in parts for name in part.names)
        return Scores(names, np.hstack([p.values for p in parts]), parts[0].total, extras, metrics, detections)
