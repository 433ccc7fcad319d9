"""One process's share of a rollout: batches are sampled, and each is scored while the next is sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..learning.fused.memory import GradientMemory, ImageGradients
from ..loop.metrics import timed
from ..loop.progress import StepBar
from ..policy.pipeline import LogProbPipeline
from ..policy.record import Sampled
from ..policy.recording.memory import RolloutMemory, allocation
from ..policy.recording.trajectory import Trajectory
from ..policy.seeds import image_generators
from ..scoring.background import BackgroundScorer
from ..scoring.scores import Scores
from .schedule import SamplingPlan


@dataclass(frozen=True)
class Collected:
    """
    The images that one process sampled and scored.

    Parameters:
        data ([`Trajectory`], [`FinalLatents`] or [`ImageGradients`]):
            The part of the denoising runs that is retained.
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


def sampling_arguments(batch: SamplingPlan) -> dict[str, Any]:
    """Return the arguments of [`LogProbPipeline.sample`] for a batch."""
    return {
        "prompts": [row["prompt"] for row in batch.rows],
        "generators": image_generators(batch.seeds),
        "num_images_per_prompt": batch.num_images_per_prompt,
    }


@dataclass(frozen=True)
class RecordedSampling:
    """
    Samples batches and retains what can be replayed.

    Parameters:
        policy ([`LogProbPipeline`]):
            Samples the images.
        model (`torch.nn.Module`):
            The denoiser as the accelerator prepared it.
        retain (`Callable`):
            Maps a trajectory in host memory to the part that is retained.
    """

    policy: LogProbPipeline
    model: torch.nn.Module
    retain: Callable[[Trajectory], Any]

    def sample(self, batch: SamplingPlan, on_step: Callable[[int], None]) -> tuple[Sampled, Any]:
        """Sample a batch. Returns the images, and what is retained of them."""
        sampled = self.policy.sample(**sampling_arguments(batch), denoiser=self.model, on_step=on_step)
        return sampled, self.retain(sampled.trajectory.cpu().by_prompt(batch.num_images_per_prompt))


def memory_for(part: Any, num_images: int, folder: Path | None) -> RolloutMemory[Any] | GradientMemory:
    """Return space for `num_images` images of which a batch retained `part`, in files of a folder if there is one."""
    allocate = allocation(folder)
    return (
        GradientMemory(num_images, allocate)
        if isinstance(part, ImageGradients)
        else RolloutMemory(num_images, allocate)
    )


def sample_and_score(
    sample: Callable[[SamplingPlan, Callable[[int], None]], tuple[Sampled, Any]],
    num_steps: int,
    batches: Sequence[SamplingPlan],
    score: Callable[[torch.Tensor, Sequence[Mapping[str, Any]]], Scores],
    scorer: BackgroundScorer,
    keep: Callable[[int, torch.Tensor], None],
    on_first: Callable[[Trajectory], None],
    on_step: Callable[[], None],
    title: str | None,
    folder: Path | None = None,
) -> Collected:
    """
    Sample and score batches.

    Args:
        sample (`Callable`):
            Samples a batch, and returns what is retained of it too. See [`RecordedSampling.sample`].
        num_steps (`int`):
            Denoising steps of a batch.
        batches (`Sequence[SamplingPlan]`):
            Prompts and seeds of images that are sampled at once.
        score (`Callable`):
            Maps images `(B, H, W, 3)`, uint8, and their dataset rows to [`Scores`].
        scorer ([`BackgroundScorer`]):
            Runs `score`.
        keep (`Callable`):
            Called with each batch: the index of its first image, and its images. See [`ImageKeeper.keeping`].
        on_first (`Callable`):
            Called with the first trajectory, on the device.
        on_step (`Callable`):
            Called after each denoising step; may raise to stop there.
        title (`str`, *optional*):
            Title of the progress bar; no bar by default.
        folder (`Path`, *optional*):
            Folder of files that hold what is retained; see [`allocation`].
    """
    memory: RolloutMemory[Any] | GradientMemory | None = None
    number, sampled_before = sum(len(batch.seeds) for batch in batches), 0
    seconds: dict[str, float] = {}
    with (
        StepBar(len(batches) * num_steps, title or "", title is not None) as bar,
        scorer.overlapping(bar.on_wait) as scoring,
    ):

        def count_step(step: int) -> None:
            bar.on_step()
            on_step()

        for batch in batches:
            with timed(seconds, "rollout"):
                sampled, part = sample(batch, count_step)
                memory = memory or memory_for(part, number, folder)
                memory.add(part)
            if not sampled_before:
                on_first(sampled.trajectory)
            keep(sampled_before, sampled.images)
            sampled_before += len(sampled.images)
            scoring.put(partial(score, sampled.images, batch.image_rows))
            if scoring.results:
                bar.on_reward(scoring.results[-1].mean)
    assert memory is not None  # a rollout has batches
    return Collected(memory.whole(), Scores.concatenate(scoring.results), {**seconds, **scoring.seconds})
