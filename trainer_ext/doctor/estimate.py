"""What a training will take, computed from a run's options and what one image of the model takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .facts import Lines

if TYPE_CHECKING:
    from ..config import DDPOConfig

GRADIENT_AND_ADAM = 12  #: bytes of a trained parameter: its gradient and AdamW's two moments, in float32
AVERAGE = 4  #: the same of a moving average of the weights
GB = 1e9


@dataclass(frozen=True)
class Shapes:
    """
    What a model and one image of it take.

    Parameters:
        weights_bytes (`int`):
            All components of the pipeline that are not offloaded, with the adapter.
        trained_parameters (`int`):
            Parameters that are trained.
        retained_bytes (`int`):
            What the algorithm retains of the latents of an image.
        conditioning_bytes (`int`):
            What is recorded of a prompt.
        num_branches (`int`):
            Rows of a denoising step of one image: branches of guidance.
        trained_steps (`int`):
            Denoising steps of an image that are trained in a pass over a rollout.
        activation_bytes (`int`):
            What a row of a forward pass keeps for the backward pass.
        block_bytes (`int`, *optional*):
            The same with gradient checkpointing: the inputs of blocks. `None` if the denoiser has no checkpoints.
        sampling_seconds, training_seconds (`float`):
            What an image with all its steps takes, and one trained step of an image.
    """

    weights_bytes: int
    trained_parameters: int
    retained_bytes: int
    conditioning_bytes: int
    num_branches: int
    trained_steps: int
    activation_bytes: int
    block_bytes: int | None
    sampling_seconds: float
    training_seconds: float


@dataclass(frozen=True)
class EstimateFacts:
    """
    What a training will take.

    Parameters:
        rollout_bytes (`int`):
            A process's share of a rollout: in host memory, or in a file with `rollout_on_disk`.
        training_bytes (`int`):
            On a device while it trains: weights, gradients, the optimizer's state and activations.
        checkpointed_bytes (`int`, *optional*):
            The same with gradient checkpointing, without the one block that is computed again at a time. `None` if the denoiser
            has no checkpoints.
        sampling_seconds, training_seconds (`float`):
            What a rollout takes.
        num_rollouts (`int`):
            Rollouts of the run.
    """

    rollout_bytes: int
    training_bytes: int
    checkpointed_bytes: int | None
    sampling_seconds: float
    training_seconds: float
    num_rollouts: int

    @property
    def hours(self) -> float:
        """Of the run, without rewards and evaluations."""
        return self.num_rollouts * (self.sampling_seconds + self.training_seconds) / 3600

    def lines(self) -> Lines:
        """Return the lines of the report."""
        checkpointed = (
            ""
            if self.checkpointed_bytes is None
            else f" ({self.checkpointed_bytes / GB:.3g} GB and one block with --gradient_checkpointing true)"
        )
        return [
            (
                "memory",
                f"about {self.training_bytes / GB:.3g} GB to train{checkpointed}, {self.rollout_bytes / GB:.3g} GB for a rollout",
            ),
            (
                "time",
                f"about {self.hours:.3g} h here for {self.num_rollouts} rollouts: each {self.sampling_seconds:.3g} s to sample "
                f"and {self.training_seconds:.3g} s to train, without rewards and evaluations",
            ),
        ]


def estimate(args: DDPOConfig, shapes: Shapes) -> EstimateFacts:
    """
    Return what a training will take.

    Args:
        args ([`DDPOConfig`]):
            The run's options.
        shapes ([`Shapes`]):
            What one image takes.
    """
    images = args.images_per_process
    prompts = -(-images // args.num_images_per_prompt)
    state = shapes.trained_parameters * (GRADIENT_AND_ADAM + AVERAGE * (args.ema_decay is not None))
    rows = args.rows_per_forward or args.per_device_train_batch_size * shapes.num_branches
    fixed = shapes.weights_bytes + state
    updates = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * args.updates_per_rollout)
    return EstimateFacts(
        rollout_bytes=images * shapes.retained_bytes + prompts * shapes.conditioning_bytes,
        training_bytes=fixed + rows * shapes.activation_bytes,
        checkpointed_bytes=None if shapes.block_bytes is None else fixed + rows * shapes.block_bytes,
        sampling_seconds=images * shapes.sampling_seconds,
        training_seconds=images * args.num_inner_epochs * shapes.trained_steps * shapes.training_seconds,
        num_rollouts=-(-updates // args.updates_per_rollout),
    )
