"""Whether gradients are taken while images are sampled, and how batches are sampled then."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from accelerate.utils import DistributedType

from ..config import DDPOConfig
from ..learning.algorithm import BoundAlgorithm
from ..learning.batches import pairs_at_once
from ..learning.fused.layers import MixedRowsError, foreign_weight
from ..learning.fused.tape import GradientTape
from ..learning.order import num_kept
from ..learning.policy_gradient import RatioGradient
from ..loop.lockstep import WHOLE_MODELS, Lockstep
from ..model.denoiser import TrainedDenoiser
from ..policy.deviations import Replayed
from ..policy.pipeline import LogProbPipeline
from ..policy.record import Sampled
from ..policy.self_check import gradient_tolerance
from .sampling import RecordedSampling, sampling_arguments
from .schedule import SamplingPlan

logger = logging.getLogger(__name__)

OnStep: TypeAlias = Callable[[int], None]


def is_on_policy(args: DDPOConfig, algorithm: BoundAlgorithm[Any, Any]) -> bool:
    """Return whether the policy that is trained is always the one that sampled: one update on a rollout, by the ratio alone."""
    return args.updates_per_rollout == 1 and isinstance(algorithm.algorithm, RatioGradient)


def obstacle(
    args: DDPOConfig,
    policy: LogProbPipeline,
    algorithm: BoundAlgorithm[Any, Any],
    denoiser: TrainedDenoiser,
    kind: DistributedType,
) -> str | None:
    """Return the reason, if there is one, why gradients of an on-policy run cannot be taken while images are sampled."""
    steps, images = algorithm.trained_steps, args.per_device_train_batch_size
    rows = policy.num_branches * min(args.rollout_batch_size, args.images_per_process)
    largest = policy.num_branches * pairs_at_once(policy, args.rows_per_forward, images)
    foreign = None if args.full_finetuning else foreign_weight(denoiser)
    reasons = {
        "full_finetuning has a gradient as large as the model for each image": args.full_finetuning,
        f"beta is {args.beta}, and the KL term needs the weights before training too": args.beta > 0,
        "torch_compile knows no gradients of single images": args.torch_compile,
        "fp16 scales gradients by what the updates before have shown": args.fp16,
        f"{kind.value} spreads the weights over processes": kind not in WHOLE_MODELS,
        f"timestep_fraction is {args.timestep_fraction}, and all steps are sampled": num_kept(
            steps, args.timestep_fraction
        )
        < len(steps),
        f"sde_window_size is {args.sde_window_size}, and each rollout has other steps": args.sde_window_size
        is not None,
        f"the trained weight {foreign} belongs to no plain Linear or Conv2d": foreign is not None,
        f"a batch of a rollout has {rows} rows, and a forward pass of training {largest}: for the memory of gradients, set "
        f"rows_per_forward={rows} or a smaller rollout_batch_size": rows > largest,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


@dataclass
class FusedSampling:
    """
    Samples batches with gradients. The first batch decides whether they are right; if not, steps are recorded as ever.

    Parameters:
        policy ([`LogProbPipeline`]):
            Samples the images.
        denoiser ([`TrainedDenoiser`]):
            The trained module itself, not what exchanges its gradients between processes.
        algorithm ([`BoundAlgorithm`]):
            Knows which steps are trained.
        lockstep ([`Lockstep`]):
            Lets all processes do the same.
    """

    policy: LogProbPipeline
    denoiser: TrainedDenoiser
    algorithm: BoundAlgorithm[Any, Any]
    lockstep: Lockstep

    def __post_init__(self) -> None:
        self._verified: bool | None = None

    @classmethod
    def of(
        cls,
        args: DDPOConfig,
        policy: LogProbPipeline,
        denoiser: TrainedDenoiser,
        algorithm: BoundAlgorithm[Any, Any],
        lockstep: Lockstep,
    ) -> FusedSampling | None:
        """Return the sampling of a run that begins, or `None`, with a word in the log, if it cannot be on-policy."""
        if not (args.fused and is_on_policy(args, algorithm)):
            return None
        reason = obstacle(args, policy, algorithm, denoiser, lockstep.accelerator.distributed_type)
        if reason is None:
            return cls(policy, denoiser, algorithm, lockstep)
        if args.process_index == 0:
            _say(reason)
        return None

    def sample(self, recorded: RecordedSampling, batch: SamplingPlan, on_step: OnStep) -> tuple[Sampled, Any]:
        """Sample a batch, or fall back to `recorded`. Returns the images, and what is retained of them."""
        if self._verified is None:
            return self._sample_first(recorded, batch, on_step)
        if not self._verified:
            return recorded.sample(batch, on_step)
        sampled, tape = self._sample(batch, on_step, keeps_first=False)
        return sampled, tape.gradients.cpu()

    def _sample(self, batch: SamplingPlan, on_step: OnStep, keeps_first: bool) -> tuple[Sampled, GradientTape]:
        steps = self.algorithm.trained_steps.tolist()
        tape = GradientTape(self.policy, self.denoiser, steps, len(batch.seeds), keeps_first)
        with tape.recording() as denoiser:
            sampled = self.policy.sample(
                **sampling_arguments(batch), denoiser=denoiser, on_step=on_step, on_transition=tape.learn
            )
        return sampled, tape

    def _sample_first(self, recorded: RecordedSampling, batch: SamplingPlan, on_step: OnStep) -> tuple[Sampled, Any]:
        problem = None
        try:
            sampled, tape = self._sample(batch, on_step, keeps_first=True)
            error = tape.error(Replayed.at_step(sampled.trajectory, self.algorithm.trained_steps[0]))
            if not error <= gradient_tolerance(self.policy):
                problem = f"those of the first step are off by {error:.0%} of what replaying it gives"
        except MixedRowsError as mixed:
            problem = str(mixed)
        self._verified = self.lockstep.agree(problem is None)
        if self._verified:
            return sampled, tape.gradients.cpu()
        if problem is not None:
            _say(problem)
        return recorded.sample(batch, on_step)


def _say(reason: str) -> None:
    logger.warning(
        "Gradients are not taken while images are sampled: %s. Steps are recorded and replayed instead, which is right as well, "
        "and slower.",
        reason,
    )
