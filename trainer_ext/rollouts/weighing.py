"""How much each image of a rollout counts in training, from the records of all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ddpo_plugins.names import DETECTORS

from ..learning.algorithm import BoundAlgorithm
from ..learning.regularisation.diversity import diversity_shaped
from ..runs.measures.formulas import column
from ..types import FloatArray


@dataclass(frozen=True)
class ImageWeights:
    """
    The weights of a rollout's B images.

    Parameters:
        values (`np.ndarray` of shape `(B,)`, float64):
            Training weight of each: its advantage, or its weight in a regression.
        distances (`np.ndarray` of shape `(B,)`, float64):
            How much each image's distance from the reference counts.
        metrics (`dict[str, float]`):
            Numbers to log.
    """

    values: FloatArray
    distances: FloatArray
    metrics: dict[str, float]

    def of_process(self, process: int, num_images: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `values` and `distances` of the `num_images` images of a process, float32."""
        own = slice(process * num_images, (process + 1) * num_images)
        return torch.from_numpy(self.values[own]).float(), torch.from_numpy(self.distances[own]).float()


def weigh_images(
    algorithm: BoundAlgorithm[Any, Any],
    records: Sequence[Mapping[str, Any]],
    objectives: Sequence[str],
    shaped_by: str | None,
) -> ImageWeights:
    """
    Compute the weights of all images, the same in every process.

    Args:
        algorithm ([`BoundAlgorithm`]):
            Computes them from rewards.
        records (`Sequence[Mapping]` of length B):
            Records of the images, from all processes.
        objectives (`Sequence[str]` of length K):
            Columns of the rewards and detectors that are objectives.
        shaped_by (`str`, *optional*):
            A detector of similar images; see [`diversity_shaped`].
    """
    total = column(records, "reward")
    rewards = np.stack([column(records, name) for name in objectives], axis=1)
    rewards[np.isnan(total)] = np.nan  # without a reward, a detector's value alone must not train
    weights = algorithm.weighting.update([record["prompt"] for record in records], rewards, total)
    gated = algorithm.gate.update(rewards, total)
    values = weights.values
    if shaped_by is not None:
        values = diversity_shaped(values, column(records, f"{DETECTORS}{shaped_by}"))
    metrics = {"frac_reward_zero_std": weights.frac_reward_zero_std, **gated.metrics}
    return ImageWeights(values, gated.values, metrics)
