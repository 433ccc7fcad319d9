"""Which images and denoising steps are trained, and in which order: pure functions of the run's seed."""

from __future__ import annotations

import logging

import numpy as np
import torch

from ..errors import ConfigError
from ..policy.transitions.gaussian import TransitionTable

logger = logging.getLogger(__name__)


def seeded_generator(*entropy: int) -> torch.Generator:
    """Return a generator that is a pure function of some numbers, so that it need not be saved."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def num_kept(steps: torch.Tensor, fraction: float) -> int:
    """Return K, the number of steps in a share of `steps` `(S,)`: at least one."""
    return max(1, int(len(steps) * fraction))


def shuffled_steps(steps: torch.Tensor, num_images: int, fraction: float, generator: torch.Generator) -> torch.Tensor:
    """
    Shuffle the trainable steps independently for each image and keep the first share.

    Args:
        steps (`torch.Tensor` of shape `(S,)`, int64):
            Steps that can be trained.
        num_images (`int`):
            B.
        fraction (`float`):
            Share to keep, at least one step.
        generator (`torch.Generator`):
            Source of the order.

    Returns:
        `torch.Tensor` of shape `(B, K)`, int64; see [`num_kept`].
    """
    kept = num_kept(steps, fraction)
    order = torch.rand(num_images, len(steps), generator=generator).argsort(dim=1)
    return steps[order[:, :kept]]


def resampled(weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    Draw as many images as there are, in proportion to their weights, with replacement: systematic resampling (Kitagawa, 1996).

    Of B images, each is drawn B * weight / sum(weights) times on average, and never a whole time more or less than that. So the
    mean of a loss over the drawn images, times the mean weight, is an unbiased estimate of mean(weights * losses).

    Args:
        weights (`torch.Tensor` of shape `(B,)`):
            At least 0. If all are 0, each image is drawn once.
        generator (`torch.Generator`):
            Source of the draw, and of its order.

    Returns:
        `torch.Tensor` of shape `(B,)`, int64, in random order.
    """
    shares = weights.double() if weights.any() else torch.ones(len(weights), dtype=torch.float64)
    ends = shares.cumsum(0)
    ends = ends / ends[-1] * len(shares)  # of each image's part of [0, B)
    places = torch.arange(len(shares), dtype=torch.float64) + torch.rand(1, generator=generator, dtype=torch.float64)
    drawn = torch.searchsorted(ends, places, right=True).clamp(max=int(shares.nonzero().max()))
    return drawn[torch.randperm(len(drawn), generator=generator)]


def trainable_steps(table: TransitionTable, skip_last: int) -> torch.Tensor:
    """
    Return the indices of the steps to train, int64: those with noise, without the last `skip_last` of all steps.

    Raises:
        [`ConfigError`]: no step is left.
    """
    deterministic = table.num_steps - len(table.stochastic_steps)
    if deterministic:
        logger.warning(
            "%d of %d denoising steps are deterministic and are not trained.", deterministic, table.num_steps
        )
    steps = table.stochastic_steps
    steps = steps[steps < table.num_steps - skip_last]
    if not len(steps):
        raise ConfigError(
            f"None of the {table.num_steps} denoising steps can be trained: {deterministic} are deterministic and "
            f"skip_last_steps is {skip_last}. Use more num_inference_steps."
        )
    return steps
