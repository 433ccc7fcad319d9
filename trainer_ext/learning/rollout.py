"""The data of training: one process's share of a rollout."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from ..policy.recording.trajectory import FinalLatents, Trajectory
from .fused.memory import ImageGradients

RolloutData = TypeVar("RolloutData", Trajectory, FinalLatents, ImageGradients)


@dataclass(frozen=True)
class Rollout(Generic[RolloutData]):
    """
    One process's share of a rollout, ready to be trained on. B images.

    Parameters:
        index (`int`):
            0 for the first rollout of the run.
        data ([`Trajectory`], [`FinalLatents`] or [`ImageGradients`]):
            The part of the denoising runs that the algorithm needs, in host memory; or gradients that are ready.
        weights (`torch.Tensor` of shape `(B,)`, float32):
            Training weight of each image: its advantage, or its weight in a regression.
        distance_weights (`torch.Tensor` of shape `(B,)` or `()`, float32, *optional*, defaults to 1):
            How much each image's distance from the reference counts, where there is one in the loss.
    """

    index: int
    data: RolloutData
    weights: torch.Tensor
    distance_weights: torch.Tensor = field(default_factory=lambda: torch.ones(()))

    def __len__(self) -> int:
        return len(self.weights)
