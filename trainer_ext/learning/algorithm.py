"""The contract of an algorithm: the data it retains of a rollout, its weights of images, and its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, final

import torch

from ..options import DDPOOptions
from ..policy.recording.trajectory import Trajectory
from ..policy.transitions.gaussian import TransitionTable
from ..policy.transitions.noising import NoisingTable
from ..types import FloatArray
from .losses import LossOutput
from .minibatch import Batch
from .old_policy import OldPolicy
from .regularisation.gating import OpenGate, gate_of
from .rollout import Rollout, RolloutData
from .weighting import Weighting


class Algorithm(ABC, Generic[RolloutData, Batch]):
    """
    Defines what is learned from a rollout. A subclass is a frozen dataclass with its options as fields; its methods are pure.

    Pass one to `DDPOTrainer(algorithm=...)`. The trainer binds it once to the run; see [`Algorithm.bind`].

    Parameters:
        name (`str`):
            Its name in checkpoints, which are only resumed by the same algorithm. By default the name of the class.
        one_update (`bool`):
            True if the loss is only right until the first update on a rollout.
        policy_gradient (`bool`):
            True if the sampler's own steps are trained, which then must have log-probabilities.
        clips_ratio (`bool`):
            True if the loss clips the ratio, which then must be within `clip_range` before the first update.
        sampler (`str`, *optional*):
            The sampler of rollouts where the options name none; by default that of the scheduler's family.
        divergence_name (`str`):
            The name under which [`Algorithm.divergence`] is logged.
    """

    name: ClassVar[str]
    one_update: ClassVar[bool] = False
    policy_gradient: ClassVar[bool] = False
    clips_ratio: ClassVar[bool] = False
    sampler: ClassVar[str | None] = None
    divergence_name: ClassVar[str] = "kl"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @abstractmethod
    def weighting(self, options: DDPOOptions, reward_weights: FloatArray) -> Weighting:
        """
        Return a new object that turns rewards into one weight for each image.

        Args:
            options ([`DDPOOptions`]):
                The run's options.
            reward_weights (`np.ndarray` of shape `(K,)`):
                Weights of the objectives: one for each reward function, and for each detector whose weight is not 0.
        """

    @abstractmethod
    def retain(self, trajectory: Trajectory) -> RolloutData:
        """Return the part of a batch of denoising runs that training needs."""

    @abstractmethod
    def steps(self, table: TransitionTable, skip_last: int) -> torch.Tensor:
        """
        Return the indices of the steps to train, int64.

        Raises:
            [`ConfigError`]: no step is left.
        """

    def order(self, rollout: Rollout[RolloutData], generator: torch.Generator) -> torch.Tensor:
        """Return the images `(B,)` of one pass over a rollout of B, in the order of training."""
        return torch.randperm(len(rollout), generator=generator)

    @abstractmethod
    def minibatch(
        self,
        rollout: Rollout[RolloutData],
        images: torch.Tensor,
        steps: torch.Tensor,
        noising: NoisingTable,
        generator: torch.Generator,
    ) -> Batch:
        """
        Collect the data that the loss of `images` `(N,)` at `steps` `(N,)` needs.

        The denoiser predicts from the result's `latents` `(N, ...)`. Any noise is drawn from `generator`.
        """

    @abstractmethod
    def loss(self, minibatch: Batch, prediction: torch.Tensor) -> LossOutput:
        """
        Return the loss of the guided `prediction` `(N, ...)`: a mean over N, because a batch may be spread over several forward
        passes, of which each counts by its N.
        """

    def divergence(self, minibatch: Batch, prediction: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """
        Return how far the guided `prediction` `(N, ...)` is from that of the model before training, `(N,)`.

        `beta` times its mean is added to the loss. Without this method, an algorithm allows no `beta`.
        """
        raise NotImplementedError

    @property
    def old_policy(self) -> OldPolicy | None:
        """
        How an old policy follows the trained one, if the loss needs one: its predictions are then in the minibatch, a
        [`NoisedBesideOld`].
        """
        return None

    @final
    def bind(
        self, options: DDPOOptions, reward_weights: FloatArray, table: TransitionTable, noising: NoisingTable
    ) -> BoundAlgorithm[RolloutData, Batch]:
        """
        Bind the algorithm to a run.

        Args:
            options ([`DDPOOptions`]):
                The run's options.
            reward_weights (`np.ndarray` of shape `(K,)`):
                Weights of the objectives, as in [`Algorithm.weighting`].
            table ([`TransitionTable`]), noising ([`NoisingTable`]):
                The steps of the run's sampler.

        Raises:
            [`ConfigError`]: no step can be trained.
        """
        weighting = self.weighting(options, reward_weights)
        gate = gate_of(options, reward_weights)
        return BoundAlgorithm(self, weighting, noising, self.steps(table, options.skip_last_steps), gate)


@dataclass(frozen=True)
class BoundAlgorithm(Generic[RolloutData, Batch]):
    """
    An algorithm that is bound to a run.

    Parameters:
        algorithm ([`Algorithm`]):
            The algorithm itself.
        weighting ([`Weighting`]):
            Turns rewards into weights; has state.
        noising ([`NoisingTable`]):
            The forward process at the sampler's steps.
        trained_steps (`torch.Tensor` of shape `(S,)`, int64):
            The steps that can be trained.
        gate ([`OpenGate`]):
            Turns rewards into weights of the distance from the reference; may have state.
    """

    algorithm: Algorithm[RolloutData, Batch]
    weighting: Weighting
    noising: NoisingTable
    trained_steps: torch.Tensor
    gate: OpenGate

    def steps_of(self, rollout: Rollout[Any]) -> torch.Tensor:
        """Return those of the trained steps that have noise in a rollout, for a policy gradient; else all of them."""
        steps, record = self.trained_steps, rollout.data
        if not (self.algorithm.policy_gradient and isinstance(record, Trajectory)):
            return steps
        return steps[torch.isin(steps, record.table.stochastic_steps)]

    def retain(self, trajectory: Trajectory) -> RolloutData:
        """See [`Algorithm.retain`]."""
        return self.algorithm.retain(trajectory)

    def order(self, rollout: Rollout[RolloutData], generator: torch.Generator) -> torch.Tensor:
        """See [`Algorithm.order`]."""
        return self.algorithm.order(rollout, generator)

    def minibatch(
        self, rollout: Rollout[RolloutData], images: torch.Tensor, steps: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        """See [`Algorithm.minibatch`]."""
        return self.algorithm.minibatch(rollout, images, steps, self.noising, generator)

    def loss(self, minibatch: Batch, prediction: torch.Tensor) -> LossOutput:
        """See [`Algorithm.loss`]."""
        return self.algorithm.loss(minibatch, prediction)
