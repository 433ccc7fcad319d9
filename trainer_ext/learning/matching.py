"""Matching on the forward process, towards good images and away from bad ones: AWM and DiffusionNFT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import ConfigError
from ..options import DDPOOptions
from ..types import FloatArray
from .losses import LossOutput, negative_aware_loss, signed_matching_loss
from .minibatch import NoisedBesideOld, NoisedLatents
from .old_policy import OldPolicy
from .regression import ForwardProcess
from .weighting import AdvantageWeighting


@dataclass(frozen=True)
class Matching(ForwardProcess):
    """
    The denoising loss with a sign: an advantage, cut to [-1, 1]. The two subclasses differ in their use of an old policy.

    Images are sampled by the pipeline's own scheduler unless the options name a sampler.

    Parameters:
        advantage_clip (`float`, *optional*, defaults to 5.0):
            Advantage that counts fully.
    """

    sampler: ClassVar[str | None] = "own"

    advantage_clip: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.advantage_clip < math.inf:
            raise ConfigError(
                f"advantage_clip is {self.advantage_clip}; for {self.name!r} it must be greater than 0 and finite: advantages "
                "are divided by it."
            )

    def weighting(self, options: DDPOOptions, reward_weights: FloatArray) -> AdvantageWeighting:
        """Weigh images by their advantages."""
        return AdvantageWeighting(options, reward_weights)

    def signs(self, minibatch: NoisedLatents) -> torch.Tensor:
        """Return the images' advantages, cut to [-1, 1], `(N,)`."""
        return (minibatch.weights / self.advantage_clip).clamp(-1, 1)

    def step_weights(self, minibatch: NoisedLatents) -> torch.Tensor:
        """
        Return the weights of the noise levels `(N,)`: noise / (signal + noise).

        For flow matching this is what an error counts in the final latents. For epsilon prediction that factor is noise / signal,
        14 in the first steps of Stable Diffusion, which would drown the others.
        """
        return minibatch.at_steps(minibatch.noising.flow_time)


@dataclass(frozen=True)
class AdvantageWeightedMatching(Matching):
    """
    AWM (arXiv:2509.25050): signed matching, held near the policy of the last updates.

    Parameters:
        old_weight (`float`, *optional*, defaults to 1.0):
            Weight of the squared distance from an average of the last updates' policies. 0 for one update on a rollout, which
            needs none and is faster without.
    """

    name: ClassVar[str] = "awm"

    old_weight: float = 1.0

    @property
    def old_policy(self) -> OldPolicy | None:
        """An average over few updates."""
        return OldPolicy(growth=0.001, limit=0.3, each_update=True) if self.old_weight else None

    def loss(self, minibatch: NoisedLatents, prediction: torch.Tensor) -> LossOutput:
        """See [`signed_matching_loss`]."""
        output = signed_matching_loss(
            prediction, minibatch.targets, self.signs(minibatch), self.step_weights(minibatch)
        )
        if not isinstance(minibatch, NoisedBesideOld):
            return output
        distance = (prediction.float() - minibatch.old_outputs.float()).square().mean()
        metrics = {**output.metrics, "old_distance": distance.detach()}
        return LossOutput(output.loss + self.old_weight * distance, metrics)


@dataclass(frozen=True)
class NegativeAwareFineTuning(Matching):
    """
    DiffusionNFT (arXiv:2509.16117): an old policy, which changes slowly, samples; its mirrored prediction matches bad images.

    Parameters:
        strength (`float`, *optional*, defaults to 1.0):
            How far the positive and the negative policy are from the old one: 1 for one reward, 0.1 for several or for text.
    """

    name: ClassVar[str] = "nft"

    strength: float = 1.0

    @property
    def old_policy(self) -> OldPolicy:
        """The policy that samples: for one reward nearly the trained one; for several it stays behind after 75 rollouts."""
        return (
            OldPolicy(growth=0.001, limit=0.5, samples=True)
            if self.strength == 1
            else OldPolicy(growth=0.0075, limit=0.999, first=75, samples=True)
        )

    def loss(self, minibatch: NoisedLatents, prediction: torch.Tensor) -> LossOutput:
        """See [`negative_aware_loss`]. As in the authors' code it is multiplied by `advantage_clip`."""
        assert isinstance(minibatch, NoisedBesideOld)  # its old policy predicts in every pass
        output = negative_aware_loss(
            prediction,
            minibatch.old_outputs,
            minibatch.targets,
            self.signs(minibatch),
            self.step_weights(minibatch),
            self.strength,
        )
        return LossOutput(self.advantage_clip * output.loss, output.metrics)
