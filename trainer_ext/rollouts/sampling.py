"""One process's share of a rollout: batches are sampled, and each is scored while the next is sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..loop.metrics import timed
from ..loop.progress import StepBar
from ..policy.pipeline import LogProbPipeline
from ..policy.recording.memory import RolloutMemory
from ..policy.recording.trajectory import Trajectory
from ..policy.seeds import image_generators
from ..scoring.background import BackgroundScorer
from ..scoring.suite import Scores
from .schedule import SamplingPlan


@dataclass(frozen=True)
class Collected:
    """
    The images that one process sampled and scored.

    Parameters:
        data ([`Trajectory`] or [`FinalLatents`]):
            The part of the denoising runs that the algorithm retains.
        scores ([`Scores`]):
            Rewards of the images.
        seconds (`Mapping[str, float]`):
            Where the time went: `rollout`, without rewards; `reward`; and `reward_wait`, the part of `reward` in which nothing
            was sampled.
    """

    data: Any
    scores: Scores
    seconds: Mapping[str, float]

    def measured(self, num_images: int) -> dict[str, float]:
        """Return this process's own metrics of a rollout of `num_images` images over all processes."""
        seconds = {f"seconds/{name}": value for name, value in self.seconds.items()}
        return {**self.scores.metrics, **seconds, "images_per_second": num_images / self.seconds["rollout"]}


def sample_and_score(
    policy: LogProbPipeline,
    model: torch.nn.Module,
    batches: Sequence[SamplingPlan],
    score: Callable[[torch.Tensor, Sequence[Mapping[str, Any]]], Scores],
    scorer: BackgroundScorer,
    retain: Callable[[Trajectory], Any],
    keep: Callable[[int, torch.Tensor], None],
    on_first: Callable[[Trajectory], None],
    on_step: Callable[[], None],
    title: str | None,
    folder: Path | None = None,
) -> Collected:
    """
    Sample and score batches.

    Args:
        policy ([`LogProbPipeline`]):
            Samples the images.
        model (`torch.nn.Module`):
            The denoiser as the accelerator prepared it.
        batches (`Sequence[SamplingPlan]`):
            Prompts and seeds of images that are sampled at once.
        score (`Callable`):
            Maps images `(B, H, W, 3)`, uint8, and their dataset rows to [`Scores`].
        scorer ([`BackgroundScorer`]):
            Runs `score`.
        retain (`Callable`):
            Maps a trajectory in host memory to the part that is retained.
        keep (`Callable`):
            Called with each batch: the index of its first image, and its images. See [`ImageKeeper.keeping`].
        on_first (`Callable`):
            Called with the first trajectory, on the device.
        on_step (`Callable`):
            Called after each denoising step; may raise to stop there.
        title (`str`, *optional*):
            Title of the progress bar; no bar by default.
        folder (`Path`, *optional*):
            Folder of a file that holds the denoising runs; see [`RolloutMemory`].
    """
    memory: RolloutMemory[Any] = RolloutMemory(sum(len(batch.seeds) for batch in batches), folder)
    sampled_before = 0
    seconds: dict[str, float] = {}
    with (
        StepBar(len(batches) * policy.table.num_steps, title or "", title is not None) as bar,
        scorer.overlapping(bar.on_wait) as scoring,
    ):

        def count_step(step: int) -> None:
            bar.on_step()
            on_step()

        for batch in batches:
            with timed(seconds, "rollout"):
                sampled = policy.sample(
                    [row["prompt"] for row in batch.rows],
                    image_generators(batch.seeds),
                    num_images_per_prompt=batch.num_images_per_prompt,
                    denoiser=model,
                    on_step=count_step,
                )
                memory.add(retain(sampled.trajectory.cpu().by_prompt(batch.num_images_per_prompt)))
            if not sampled_before:
                on_first(sampled.trajectory)
            keep(sampled_before, sampled.images)
            sampled_before += len(sampled.images)
            scoring.put(partial(score, sampled.images, batch.image_rows))
            if scoring.results:
                bar.on_reward(scoring.results[-1].mean)
    return Collected(memory.whole(), Scores.concatenate(scoring.results), {**seconds, **scoring.seconds})
