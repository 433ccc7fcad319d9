"""A distance from the reference that only counts for images that the trained reward overrates (GARDO, arXiv:2512.24138)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...options import DDPOOptions
from ...types import FloatArray
from ..advantages import win_rates

FIRST_SHARE, SMALLEST_SHARE, LARGEST_SHARE = (
    0.1,
    0.02,
    0.2,
)  #: of the overrated images, those that the distance counts for
GROWTH, DECLINE = (
    1.1,
    0.9,
)  #: factors of the share where the uncertainty is higher, or lower, than all that are remembered
REMEMBERED_ROLLOUTS = 20


def uncertainty(trained: FloatArray, held_out: FloatArray) -> FloatArray:
    """
    Return how much more of the other images an image beats by the trained reward than by the held-out ones: w(trained) -
    mean(w(held-out)), in [-1, 1] (GARDO, eq. 7). Above 0, the trained reward overrates the image.

    Args:
        trained (`np.ndarray` of shape `(B,)`):
            The reward that is trained on; NaN where it is missing.
        held_out (`np.ndarray` of shape `(B, K)`):
            Rewards that are not.

    Returns:
        `np.ndarray` of shape `(B,)`; NaN where the trained reward, or each of the others, is missing.
    """
    others = np.stack([win_rates(column) for column in held_out.T], axis=1)
    present = ~np.isnan(others)
    known = np.where(present.any(axis=1), present.sum(axis=1), np.nan)
    return win_rates(trained) - np.where(present, others, 0.0).sum(axis=1) / known


def most_overrated(uncertainties: FloatArray, share: float) -> FloatArray:
    """
    Return 1 for the most uncertain `share` of the images whose uncertainty `(B,)` is not below 0, and 0 for all others.

    Images that are no more uncertain than the limit are not counted, so that none is where all are equally uncertain.
    """
    overrated = uncertainties[uncertainties >= 0]
    limit = np.quantile(overrated, 1 - share) if len(overrated) else np.inf
    return (uncertainties > limit).astype(np.float64)


@dataclass(frozen=True)
class GateWeights:
    """
    How much the distance from the reference counts for the images of a rollout.

    Parameters:
        values (`np.ndarray` of shape `(B,)`, float64):
            Weight of each image's distance; 1 on average, unless all are 0.
        metrics (`Mapping[str, float]`, *optional*):
            Numbers to log.
    """

    values: FloatArray
    metrics: Mapping[str, float] = field(default_factory=dict)


class OpenGate:
    """The distance counts for all images alike."""

    def update(self, rewards: FloatArray, total: FloatArray) -> GateWeights:
        """
        Compute the weights of a rollout's images.

        Args:
            rewards (`np.ndarray` of shape `(B, K)`):
                The reward of each objective; NaN where there is none.
            total (`np.ndarray` of shape `(B,)`):
                The reward that is trained on.
        """
        return GateWeights(np.ones(len(total)))

    def state_dict(self) -> dict[str, list[float]]:
        """Return the memory that lasts from rollout to rollout, for a checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restore what [`state_dict`] returned."""


class UncertaintyGate(OpenGate):
    """
    The distance counts for the images that the trained reward overrates most, and for more of them as they become more uncertain.

    Args:
        held_out (`Sequence[int]`):
            Columns of the objectives that are not trained on.
    """

    def __init__(self, held_out: Sequence[int]):
        self.held_out = list(held_out)
        self.share = FIRST_SHARE
        self._means: deque[float] = deque(maxlen=REMEMBERED_ROLLOUTS)

    def update(self, rewards: FloatArray, total: FloatArray) -> GateWeights:
        """See [`OpenGate.update`]."""
        uncertainties = uncertainty(total, rewards[:, self.held_out])
        overrated = uncertainties[uncertainties >= 0]
        mean = float(overrated.mean()) if len(overrated) else 0.0
        self._adapt(mean)
        chosen = most_overrated(uncertainties, self.share)
        metrics = {"gate/uncertainty": mean, "gate/share": self.share, "gate/images": float(chosen.mean())}
        return GateWeights(chosen / chosen.mean() if chosen.any() else chosen, metrics)

    def _adapt(self, mean: float) -> None:
        """Move the share where the mean uncertainty of the overrated images is out of the range of the last rollouts."""
        if self._means and not min(self._means) <= mean <= max(self._means):
            factor = GROWTH if mean > max(self._means) else DECLINE
            self.share = min(max(self.share * factor, SMALLEST_SHARE), LARGEST_SHARE)
        self._means.append(mean)

    def state_dict(self) -> dict[str, list[float]]:
        """Return the share, and the mean uncertainties of the last rollouts."""
        return {"share": [self.share], "means": list(self._means)}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restore what [`state_dict`] returned; begin where a run without this gate ended."""
        if state:
            (self.share,) = state["share"]
            self._means = deque(state["means"], maxlen=REMEMBERED_ROLLOUTS)


def gate_of(options: DDPOOptions, reward_weights: FloatArray) -> OpenGate:
    """
    Return the gate that a run's options ask for.

    Args:
        options ([`DDPOOptions`]):
            The run's options.
        reward_weights (`np.ndarray` of shape `(K,)`):
            Weights of the objectives. Those with weight 0 are held out, and others are not: [`check_regularisation`] says so.
    """
    return UncertaintyGate(np.flatnonzero(reward_weights == 0).tolist()) if options.kl_gate else OpenGate()
