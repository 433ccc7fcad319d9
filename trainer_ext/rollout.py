"""From prompts to what the trainer learns from: which prompts and seeds, then denoising runs and what they count."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from .errors import ConfigError
from .policy import Finals, Trajectory, TransitionTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assignment:
    """
    What one process samples in one rollout. B images, prompt by prompt.

    Parameters:
        rows (`list[dict]` of length P):
            Dataset rows, each with its `prompt`.
        seeds (`list[int]` of length B):
            One for each image: with its prompt it determines the image, whatever the batch or the process.
        num_images_per_prompt (`int`):
            B / P.
    """

    rows: list[dict[str, Any]]
    seeds: list[int]
    num_images_per_prompt: int

    @property
    def image_rows(self) -> list[dict[str, Any]]:
        """The row of each image, length B."""
        return [row for row in self.rows for _ in range(self.num_images_per_prompt)]

    @property
    def prompts(self) -> list[str]:
        """The prompt of each image, length B."""
        return [row["prompt"] for row in self.image_rows]

    def batches(self, batch_size: int) -> list[Assignment]:
        """Split into batches of `batch_size` images, of whole prompts where they fit."""
        per_prompt = min(self.num_images_per_prompt, batch_size)
        images = self.image_rows
        return [
            Assignment(images[i : i + batch_size : per_prompt], self.seeds[i : i + batch_size], per_prompt)
            for i in range(0, len(images), batch_size)
        ]


Memory = TypeVar("Memory", Trajectory, Finals)


@dataclass(frozen=True)
class Rollout(Generic[Memory]):
    """
    One process's share of a rollout, ready to be trained on. B images.

    Parameters:
        index (`int`):
            0 for the first rollout of the run.
        memory ([`Trajectory`] or [`Finals`]):
            What the algorithm needs of the denoising runs, in host memory.
        weights (`torch.Tensor` of shape `(B,)`, float32):
            What each image counts: its advantage, or its weight in a regression.
    """

    index: int
    memory: Memory
    weights: torch.Tensor

    def __len__(self) -> int:
        return len(self.weights)


class PromptSchedule:
    """
    Which prompts and seeds each rollout uses: a pure function of the run's seed and the rollout's index.

    Prompts are drawn in shuffled passes, so that all are used equally often. Nothing has to be saved to resume.

    Args:
        rows (`Sequence[Mapping[str, Any]]`):
            The dataset, each row with a `prompt`.
        num_images (`int`):
            Images of a rollout, over all processes.
        num_images_per_prompt (`int`):
            Images of a prompt.
        seed (`int`):
            Of the run.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], num_images: int, num_images_per_prompt: int, seed: int):
        self.rows = rows
        self.num_images = num_images
        self.num_images_per_prompt = num_images_per_prompt
        self.seed = seed

    def assignment(self, rollout: int, process: int = 0, num_processes: int = 1) -> Assignment:
        """Return the share of `process` in the rollout with index `rollout`."""
        num_prompts = self.num_images // self.num_images_per_prompt
        seeds = np.random.SeedSequence([self.seed, rollout]).generate_state(self.num_images).tolist()
        share, images = num_prompts // num_processes, self.num_images // num_processes
        first = rollout * num_prompts + process * share
        rows = [dict(self.rows[self._row(position)]) for position in range(first, first + share)]
        return Assignment(rows, seeds[process * images : (process + 1) * images], self.num_images_per_prompt)

    def _row(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.rows))
        return int(_permutation(self.seed, epoch, len(self.rows))[offset])


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


def image_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Return one generator for each image. On the host: the same seed gives the same image on every device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def seeded_generator(*entropy: int) -> torch.Generator:
    """Return a generator that is a pure function of some numbers: it needs no saving."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


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
        `torch.Tensor` of shape `(B, K)`, int64, K = max(1, int(S * fraction)).
    """
    kept = max(1, int(len(steps) * fraction))
    order = torch.rand(num_images, len(steps), generator=generator).argsort(dim=1)
    return steps[order[:, :kept]]


def trainable_steps(table: TransitionTable, skip_last: int) -> torch.Tensor:
    """
    Return the indices of the steps to train, int64: those with noise, but for the last ones if they are to be skipped.

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
