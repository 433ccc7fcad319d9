"""DDPO's two policy gradients (Black et al., 2023, section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..options import DDPOOptions
from ..policy.recording.trajectory import Trajectory
from ..policy.transitions.gaussian import TransitionTable
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

    policy_gradient = True

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


@dataclass(frozen=True)
class ImportanceSampling(PolicyGradient):
    """
    DDPO-IS: PPO's clipped ratio, for several updates on a rollout.

    Parameters:
        clip_range (`float`, *optional*, defaults to 1e-4):
            Half-width of the interval that the ratio is clipped to.
    """

    name: ClassVar[str] = "ddpo_is"
    clips_ratio: ClassVar[bool] = True

    clip_range: float = 1e-4

    def loss(self, minibatch: Transitions, prediction: torch.Tensor) -> LossOutput:
        """See [`clipped_surrogate_loss`]."""
        log_ratio = minibatch.ratio_terms(prediction).log_ratio
        return clipped_surrogate_loss(log_ratio, minibatch.advantages, self.clip_range)


@dataclass(frozen=True)
class ScoreFunction(PolicyGradient):
    """DDPO-SF: REINFORCE, for one update on a rollout."""

    name: ClassVar[str] = "ddpo_sf"
    one_update: ClassVar[bool] = True

    def loss(self, minibatch: Transitions, prediction: torch.Tensor) -> LossOutput:
        """See [`score_function_loss`]."""
        return score_function_loss(minibatch.ratio_terms(prediction).log_ratio, minibatch.advantages)
