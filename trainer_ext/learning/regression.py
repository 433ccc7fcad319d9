"""The article's baselines: reward-weighted regression (RWR) and its sparse form (Black et al., 2023, section 4.2)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ..options import DDPOOptions
from ..policy.recording.trajectory import FinalLatents, Trajectory
from ..policy.transitions.gaussian import TransitionTable
from ..policy.transitions.noising import NoisingTable
from ..types import FloatArray
from .algorithm import Algorithm
from .losses import LossOutput, weighted_denoising_loss
from .minibatch import NoisedLatents
from .order import resampled
from .rollout import Rollout
from .weighting import RegressionWeighting, quantile_weights, softmax_weights


class ForwardProcess(Algorithm[FinalLatents, NoisedLatents]):
    """Learns from final images that are noised again, at the sampler's timesteps: no step needs a log-probability."""

    divergence_name: ClassVar[str] = "reference_distance"

    def retain(self, trajectory: Trajectory) -> FinalLatents:
        """Keep the final latents, which take much less memory than the full trajectory."""
        return trajectory.final_latents()

    def steps(self, table: TransitionTable, skip_last: int) -> torch.Tensor:
        """Train at every step: also those without noise, which policy gradients must leave out."""
        return torch.arange(table.num_steps)

    def minibatch(
        self,
        rollout: Rollout[FinalLatents],
        images: torch.Tensor,
        steps: torch.Tensor,
        noising: NoisingTable,
        generator: torch.Generator,
    ) -> NoisedLatents:
        """Add noise to the final latents."""
        denoised = rollout.data.latents[images]
        epsilon = torch.randn(denoised.shape, generator=generator)
        noised, targets = noising.noised(steps, denoised, epsilon), noising.target(steps, denoised, epsilon)
        return NoisedLatents(noising, steps, noised, targets, rollout.weights[images])

    def divergence(self, minibatch: NoisedLatents, prediction: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Return the mean squared distance of the two predictions of the final latents."""
        distance = (prediction.float() - reference.float()).square().flatten(1).mean(1)
        return minibatch.at_steps(minibatch.noising.denoised_coef).square() * distance


class Regression(ForwardProcess):
    """The denoising loss on the rollout's own images. The two subclasses differ in the weights."""

    @abstractmethod
    def weights(self, rewards: FloatArray) -> FloatArray:
        """Turn the rewards `(n,)` of a group of images into their weights `(n,)`."""

    def weighting(self, options: DDPOOptions, reward_weights: FloatArray) -> RegressionWeighting:
        """Weigh images within their prompt, or with `advantages="batch"` within the rollout."""
        return RegressionWeighting(self.weights, per_prompt=options.advantages != "batch")

    def loss(self, minibatch: NoisedLatents, prediction: torch.Tensor) -> LossOutput:
        """See [`weighted_denoising_loss`]."""
        return weighted_denoising_loss(prediction, minibatch.targets, minibatch.weights)


@dataclass(frozen=True)
class RewardWeightedRegression(Regression):
    """
    RWR: every image, with weight softmax(beta * reward).

    Parameters:
        beta (`float`, *optional*, defaults to 0.2):
            Inverse temperature.
        resample (`bool`, *optional*, defaults to `False`):
            Draw the images in proportion to their weights, instead of multiplying their losses by them. The expected loss is the
            same, and a batch holds no images that hardly count.
    """

    name: ClassVar[str] = "rwr"

    beta: float = 0.2
    resample: bool = False

    def weights(self, rewards: FloatArray) -> FloatArray:
        """See [`softmax_weights`]."""
        return softmax_weights(rewards, self.beta)

    def order(self, rollout: Rollout[FinalLatents], generator: torch.Generator) -> torch.Tensor:
        """Go through all images, or through as many that each pass draws by their weights; see [`resampled`]."""
        return resampled(rollout.weights, generator) if self.resample else super().order(rollout, generator)

    def minibatch(
        self,
        rollout: Rollout[FinalLatents],
        images: torch.Tensor,
        steps: torch.Tensor,
        noising: NoisingTable,
        generator: torch.Generator,
    ) -> NoisedLatents:
        """Add noise to the final latents. Images that were drawn by their weights all have the mean weight."""
        minibatch = super().minibatch(rollout, images, steps, noising, generator)
        if not self.resample:
            return minibatch
        return replace(minibatch, weights=rollout.weights.mean().expand(len(images)))


@dataclass(frozen=True)
class SparseRewardWeightedRegression(Regression):
    """
    Sparse RWR: only the images with the best rewards, all with the same weight.

    Parameters:
        quantile (`float`, *optional*, defaults to 0.9):
            Images whose reward is at or above this quantile are kept.
    """

    name: ClassVar[str] = "sparse_rwr"

    quantile: float = 0.9

    def weights(self, rewards: FloatArray) -> FloatArray:
        """See [`quantile_weights`]."""
        return quantile_weights(rewards, self.quantile)

    def order(self, rollout: Rollout[FinalLatents], generator: torch.Generator) -> torch.Tensor:
        """Go through the kept images several times, for as many updates as all images would have given."""
        kept = rollout.weights.nonzero().flatten()
        if not len(kept):  # all of the best images belong to other processes
            return super().order(rollout, generator)
        rounds = -(-len(rollout) // len(kept))
        return torch.cat([kept[torch.randperm(len(kept), generator=generator)] for _ in range(rounds)])[: len(rollout)]
