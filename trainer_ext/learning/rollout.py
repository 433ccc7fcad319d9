"""The data of training: one process's share of a rollout."""

from __future__ import annotations

from dataclasses import dataclass
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
    """

    index: int
    data: RolloutData
    weights: torch.Tensor

    def __len__(self) -> int:
        return len(self.weights)
