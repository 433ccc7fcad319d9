"""DDPO's two policy gradients (Black et al., 2023, section 4.3)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..options import CLIP_RANGES, DDPOOptions
from ..policy.recording.trajectory import Trajectory
from ..policy.transitions.gaussian import TransitionTable, kl_divergence
from ..policy.transitions.noising import NoisingTable
from ..types import FloatArray
from .algorithm import Algorithm
from .losses import LossOutput, clipped_surrogate_loss, score_function_loss
from .minibatch import Transitions
from .order import trainable_steps
from .rollout import Rollout
from .weighting import AdvantageWeighting


class PolicyGradient(Algorithm[Trajectory, Transitions]):
    """Raises the log-probability of denoising steps that led to a better image. The two subclasses differ in the loss."""

    policy_gradient: ClassVar[bool] = True

    def weighting(self, options: DDPOOptions, reward_weights: FloatArray) -> AdvantageWeighting:
        """Weigh images by their advantages."""
        return AdvantageWeighting(options, reward_weights)

    def retain(self, trajectory: Trajectory) -> Trajectory:
        """Keep the full trajectory."""
        return trajectory

    def steps(self, table: TransitionTable, skip_last: int) -> torch.Tensor:
        """Train the steps that have a log-probability, without the last `skip_last`."""
        return trainable_steps(table, skip_last)

    def minibatch(
        self,
        rollout: Rollout[Trajectory],
        images: torch.Tensor,
        steps: torch.Tensor,
        noising: NoisingTable,
        generator: torch.Generator,
    ) -> Transitions:
        """Take the recorded transitions."""
        trajectory = rollout.data
        return Transitions(
            trajectory.table,
            steps,
            trajectory.latents[images, steps],
            trajectory.model_outputs[images, steps],
            trajectory.latents[images, steps + 1],
            rollout.weights[images],
        )

    def divergence(self, minibatch: Transitions, prediction: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Return the KL divergence of the steps' Gaussians; see [`kl_divergence`]."""
        return kl_divergence(minibatch.table, minibatch.steps, prediction, reference)


class RatioGradient(PolicyGradient):
    """
    A policy gradient whose loss knows the prediction by its ratio alone.

    With one update on a rollout, all ratios are 1, and the gradients of its log-probabilities can be taken while images are
    sampled: the fused pass.
    """

    @abstractmethod
    def ratio_loss(self, log_ratio: torch.Tensor, advantages: torch.Tensor) -> LossOutput:
        """Return the loss of log-ratios `(N,)`, which carry the gradient, and advantages `(N,)`: a mean over N."""

    def loss(self, minibatch: Transitions, prediction: torch.Tensor) -> LossOutput:
        """Return the loss of the prediction's ratio."""
        return self.ratio_loss(minibatch.ratio_terms(prediction).log_ratio, minibatch.advantages)


@dataclass(frozen=True)
class ImportanceSampling(RatioGradient):
    """
    DDPO-IS: PPO's clipped ratio, for several updates on a rollout.

    Parameters:
        clip_range (`float`, *optional*, defaults to 1e-4):
            Half-width of the interval that the ratio is clipped to.
    """

    name: ClassVar[str] = "ddpo_is"
    clips_ratio: ClassVar[bool] = True

    clip_range: float = CLIP_RANGES["ddpo_is"]

    def ratio_loss(self, log_ratio: torch.Tensor, advantages: torch.Tensor) -> LossOutput:
        """See [`clipped_surrogate_loss`]."""
        return clipped_surrogate_loss(log_ratio, advantages, self.clip_range)


@dataclass(frozen=True)
class ScoreFunction(RatioGradient):
    """DDPO-SF: REINFORCE, for one update on a rollout."""

    name: ClassVar[str] = "ddpo_sf"
    one_update: ClassVar[bool] = True

    def ratio_loss(self, log_ratio: torch.Tensor, advantages: torch.Tensor) -> LossOutput:
        """See [`score_function_loss`]."""
        return score_function_loss(log_ratio, advantages)
