"""Which prompts and seeds each rollout samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..config import DDPOConfig


@dataclass(frozen=True)
class SamplingPlan:
    """
    The images that one process samples in one rollout: B images, prompt by prompt.

    Parameters:
        rows (`list[dict]` of length P):
            Dataset rows, each with its `prompt`.
        seeds (`list[int]` of length B):
            Seed of each image. Prompt and seed determine the image, in any batch and process.
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

    def batches(self, batch_size: int) -> list[SamplingPlan]:
        """Split into batches of `batch_size` images, keeping the images of a prompt together where they fit."""
        per_prompt = min(self.num_images_per_prompt, batch_size)
        images = self.image_rows
        return [
            SamplingPlan(images[i : i + batch_size : per_prompt], self.seeds[i : i + batch_size], per_prompt)
            for i in range(0, len(images), batch_size)
        ]


class PromptSchedule:
    """
    Which prompts and seeds each rollout uses: a pure function of the run's seed and the rollout's index.

    Prompts are drawn in shuffled passes, so that all are used equally often. Nothing has to be saved to resume.

    Args:
        rows (`Sequence[Mapping[str, Any]]`):
            The dataset, each row with a `prompt`.
        num_images (`int`):
            Images in a rollout, over all processes.
        num_images_per_prompt (`int`):
            Images of each prompt in a rollout.
        seed (`int`):
            The run's seed.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], num_images: int, num_images_per_prompt: int, seed: int):
        self.rows = rows
        self.num_images = num_images
        self.num_images_per_prompt = num_images_per_prompt
        self.seed = seed

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], args: DDPOConfig) -> PromptSchedule:
        """Return the schedule of a run."""
        return cls(rows, args.num_images_per_rollout, args.num_images_per_prompt, args.seed)

    def plan(self, rollout: int, process: int = 0, num_processes: int = 1) -> SamplingPlan:
        """Return the share of `process` in the rollout with index `rollout`."""
        num_prompts = self.num_images // self.num_images_per_prompt
        seeds = np.random.SeedSequence([self.seed, rollout]).generate_state(self.num_images).tolist()
        share, images = num_prompts // num_processes, self.num_images // num_processes
        first = rollout * num_prompts + process * share
        rows = [dict(self.rows[self._row(position)]) for position in range(first, first + share)]
        return SamplingPlan(rows, seeds[process * images : (process + 1) * images], self.num_images_per_prompt)

    def _row(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.rows))
        return int(_permutation(self.seed, epoch, len(self.rows))[offset])


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)
