"""What is learned from a rollout: DDPO-IS, DDPO-SF, RWR and sparse RWR, one class each, over the same rollouts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Generic

import torch

from ..options import DDPOOptions
from ..policy.recording.trajectory import FinalLatents, Trajectory
from ..policy.transitions.gaussian import TransitionTable
from ..policy.transitions.noising import NoisingTable
from ..types import FloatArray
from .losses import LossOutput, clipped_surrogate_loss, score_function_loss, weighted_denoising_loss
from .minibatch import Batch, NoisedLatents, Transitions
from .order import trainable_steps
from .rollout import Rollout, RolloutData
from .weighting import AdvantageWeighting, RegressionWeighting, Weighting, quantile_weights, softmax_weights


class Algorithm(ABC, Generic[RolloutData, Batch]):
    """
    What is remembered of a rollout, in which order it is trained on, and with which loss.

    Parameters:
        weighting ([`Weighting`]):
            What each image counts.
    """

    weighting: Weighting

    @abstractmethod
    def retain(self, trajectory: Trajectory) -> RolloutData:
        """Return what must be remembered of a batch of denoising runs."""

    @abstractmethod
    def steps(self, table: TransitionTable, skip_last: int) -> torch.Tensor:
        """Return the indices of the steps that are trained, int64."""

    def order(self, rollout: Rollout[RolloutData], generator: torch.Generator) -> torch.Tensor:
        """Return the images `(B,)` of one pass over a rollout of B, in the order of training."""
        return torch.randperm(len(rollout), generator=generator)

    @abstractmethod
    def minibatch(
        self, rollout: Rollout[RolloutData], images: torch.Tensor, steps: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        """
        Collect what the loss of `images` `(N,)` at `steps` `(N,)` needs.

        `latents` `(N, ...)` of the result is what the denoiser predicts from. Any noise is of `generator`.
        """

    @abstractmethod
    def loss(self, minibatch: Batch, prediction: torch.Tensor) -> LossOutput:
        """Return the loss of the guided `prediction` `(N, ...)`."""


class PolicyGradient(Algorithm[Trajectory, Transitions]):
    """Raises the log-probability of denoising steps that led to a better image; its two estimators differ in the loss."""

    def __init__(self, options: DDPOOptions, reward_weights: FloatArray):
        self.clip_range = options.clip_range
        self.weighting = AdvantageWeighting(options, reward_weights)

    def retain(self, trajectory: Trajectory) -> Trajectory:
        """Keep the full trajectory."""
        return trajectory

    def steps(self, table: TransitionTable, skip_last: int) -> torch.Tensor:
        """Train the steps that have a log-probability, but for the last `skip_last`."""
        return trainable_steps(table, skip_last)

    def minibatch(
        self, rollout: Rollout[Trajectory], images: torch.Tensor, steps: torch.Tensor, generator: torch.Generator
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


class ImportanceSampling(PolicyGradient):
    """DDPO-IS (Black et al., 2023, section 4.3): PPO's clipped ratio, for several updates on a rollout."""

    def loss(self, minibatch: Transitions, prediction: torch.Tensor) -> LossOutput:
        """See [`clipped_surrogate_loss`]."""
        log_ratio = minibatch.ratio_terms(prediction).log_ratio
        return clipped_surrogate_loss(log_ratio, minibatch.weights, self.clip_range)


class ScoreFunction(PolicyGradient):
    """DDPO-SF (Black et al., 2023, section 4.3): REINFORCE, for one update on a rollout."""

    def loss(self, minibatch: Transitions, prediction: torch.Tensor) -> LossOutput:
        """See [`score_function_loss`]."""
        return score_function_loss(minibatch.ratio_terms(prediction).log_ratio, minibatch.weights)


class Regression(Algorithm[FinalLatents, NoisedLatents]):
    """
    The denoising loss on the rollout's own images, at the sampler's timesteps; its two kinds differ in the weights.

    Args:
        weigh (`Callable`):
            From the rewards of a group of images to their weights.
        per_prompt (`bool`):
            Whether a group is the images of a prompt, or the rollout.
        noising ([`NoisingTable`]):
            Of the sampler's steps.
    """

    def __init__(self, weigh: Callable[[FloatArray], FloatArray], per_prompt: bool, noising: NoisingTable):
        self.weighting = RegressionWeighting(weigh, per_prompt)
        self.noising = noising

    def retain(self, trajectory: Trajectory) -> FinalLatents:
        """Keep the final latents, which take much less memory than the full trajectory."""
        return trajectory.final_latents()

    def steps(self, table: TransitionTable, skip_last: int) -> torch.Tensor:
        """Train at every step: those that policy gradients leave out are like the others here."""
        return torch.arange(table.num_steps)

    def minibatch(
        self, rollout: Rollout[FinalLatents], images: torch.Tensor, steps: torch.Tensor, generator: torch.Generator
    ) -> NoisedLatents:
        """Noise the final images."""
        denoised = rollout.data.latents[images]
        epsilon = torch.randn(denoised.shape, generator=generator)
        return NoisedLatents(
            self.noising.noised(steps, denoised, epsilon),
            self.noising.target(steps, denoised, epsilon),
            rollout.weights[images],
        )

    def loss(self, minibatch: NoisedLatents, prediction: torch.Tensor) -> LossOutput:
        """See [`weighted_denoising_loss`]."""
        return weighted_denoising_loss(prediction, minibatch.targets, minibatch.weights)


class RewardWeightedRegression(Regression):
    """RWR (Black et al., 2023, section 4.2): every image, with weight softmax(rwr_beta * reward)."""

    def __init__(self, options: DDPOOptions, noising: NoisingTable):
        super().__init__(partial(softmax_weights, beta=options.rwr_beta), options.advantages != "batch", noising)


class SparseRewardWeightedRegression(Regression):
    """Sparse RWR (Black et al., 2023, section 4.2): the images with the best rewards, all with the same weight."""

    def __init__(self, options: DDPOOptions, noising: NoisingTable):
        weigh = partial(quantile_weights, quantile=options.rwr_quantile)
        super().__init__(weigh, options.advantages != "batch", noising)

    def order(self, rollout: Rollout[FinalLatents], generator: torch.Generator) -> torch.Tensor:
        """Go through the kept images again and again, for as many updates as all images would have given."""
        kept = rollout.weights.nonzero().flatten()
        if not len(kept):  # the best are all another process's
            return super().order(rollout, generator)
        rounds = -(-len(rollout) // len(kept))
        return torch.cat([kept[torch.randperm(len(kept), generator=generator)] for _ in range(rounds)])[: len(rollout)]


ALGORITHMS: dict[str, Callable[[DDPOOptions, FloatArray, NoisingTable], Algorithm[Any, Any]]] = {
    "ddpo_is": lambda options, reward_weights, noising: ImportanceSampling(options, reward_weights),
    "ddpo_sf": lambda options, reward_weights, noising: ScoreFunction(options, reward_weights),
    "rwr": lambda options, reward_weights, noising: RewardWeightedRegression(options, noising),
    "sparse_rwr": lambda options, reward_weights, noising: SparseRewardWeightedRegression(options, noising),
}

ONE_UPDATE = ("ddpo_sf",)  #: those whose loss is right only until the first update on a rollout

POLICY_GRADIENTS = ("ddpo_is", "ddpo_sf")  #: those whose steps are the policy's own, so that a KL divergence is defined
