"""What an update is computed from: images of a rollout with their steps, and the forward passes that they are spread over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic

import torch

from ..errors import ConfigError
from ..policy.pipeline import LogProbPipeline
from .algorithm import BoundAlgorithm
from .minibatch import Batch, cut, joined
from .order import seeded_generator, shuffled_steps
from .rollout import Rollout


@dataclass(frozen=True)
class TrainingBatch:
    """
    Images of a rollout and the denoising steps to train on.

    Parameters:
        rollout ([`Rollout`]):
            The rollout that the images belong to.
        images (`torch.Tensor` of shape `(b,)`, int64):
            Positions in the rollout.
        steps (`torch.Tensor` of shape `(b, K)`, int64):
            K steps for each image.
        noise (`torch.Generator`):
            Source of the noise that the algorithm draws.
    """

    rollout: Rollout[Any]
    images: torch.Tensor
    steps: torch.Tensor
    noise: torch.Generator


@dataclass(frozen=True)
class ForwardPass(Generic[Batch]):
    """
    N pairs of an image and a step that go through the denoiser at once.

    Parameters:
        images, steps (`torch.Tensor` of shape `(N,)`, int64):
            Positions in the rollout, and denoising steps; both may be mixed.
        minibatch ([`Transitions`] or [`NoisedLatents`]):
            What the loss needs of them.
    """

    images: torch.Tensor
    steps: torch.Tensor
    minibatch: Batch


def training_batch(
    algorithm: BoundAlgorithm[Any, Any],
    rollout: Rollout[Any],
    positions: torch.Tensor,
    timestep_fraction: float,
    seed: int,
    process: int,
) -> TrainingBatch:
    """
    Return the images and steps at some positions in the order of training.

    Args:
        algorithm ([`BoundAlgorithm`]):
            Orders the images, and says which steps can be trained.
        rollout ([`Rollout`]):
            This process's B images.
        positions (`torch.Tensor` of shape `(b,)`, int64):
            Counted through all passes over the rollout, all in one pass: pass p has positions p * B to (p + 1) * B - 1.
        timestep_fraction (`float`):
            Share of the steps to train in a pass.
        seed, process (`int`):
            The run's seed and the number of this process.
    """
    inner_epoch = int(positions[0]) // len(rollout)
    generator = seeded_generator(seed, rollout.index, inner_epoch, process)
    images = algorithm.order(rollout, generator)
    steps = shuffled_steps(algorithm.steps_of(rollout), len(rollout), timestep_fraction, generator)
    here = positions % len(rollout)
    noise = seeded_generator(seed, rollout.index, int(positions[0]), process, 1)
    return TrainingBatch(rollout, images[here], steps[here], noise)


def pairs_at_once(policy: LogProbPipeline, rows_per_forward: int | None, num_images: int) -> int:
    """
    Return how many pairs of an image and a step a forward pass of training takes.

    Args:
        policy ([`LogProbPipeline`]):
            Makes a row of each branch of guidance.
        rows_per_forward (`int`, *optional*):
            Rows of a forward pass; by default those of one step of each image.
        num_images (`int`):
            Images that are trained on at once.

    Raises:
        [`ConfigError`]: not even one pair fits.
    """
    if rows_per_forward is None:
        return num_images
    if rows_per_forward < policy.num_branches:
        raise ConfigError(
            f"rows_per_forward is {rows_per_forward}, and one denoising step of one image takes {policy.num_branches}, one for "
            f"each branch of guidance; it must be at least {policy.num_branches}."
        )
    return rows_per_forward // policy.num_branches


def forward_passes(
    algorithm: BoundAlgorithm[Any, Batch], batch: TrainingBatch, size: int
) -> Iterator[ForwardPass[Batch]]:
    """
    Split the pairs of a batch, step by step, into passes of `size` pairs; the last may be smaller.

    Noise is drawn for one step of all images at a time, so that it is the same for any size.
    """
    minibatches = (algorithm.minibatch(batch.rollout, batch.images, steps, batch.noise) for steps in batch.steps.T)
    images = batch.images.repeat(batch.steps.shape[1])
    held: Batch | None = None
    for chosen, steps in zip(images.split(size), batch.steps.T.flatten().split(size), strict=True):
        while held is None or len(held.latents) < len(steps):
            held = next(minibatches) if held is None else joined(held, next(minibatches))
        first, held = (held, None) if len(held.latents) == len(steps) else cut(held, len(steps))
        yield ForwardPass(chosen, steps, first)
