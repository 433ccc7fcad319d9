"""Rewards of held-out prompts with fixed seeds, also of rewards that are never trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset

from ..policy.pipeline import LogProbPipeline
from ..policy.seeds import image_generators
from ..rollouts.schedule import SamplingPlan
from ..scoring.background import BackgroundScorer
from ..scoring.suite import RewardSuite, Scores


def evaluation_share(dataset: Dataset, process: int, num_processes: int) -> SamplingPlan:
    """Return what one process samples: one image for each row, whose number is the image's seed."""
    own = range(process, len(dataset), num_processes)
    return SamplingPlan([dataset[row] for row in own], list(own), 1)


def score_dataset(
    policy: LogProbPipeline,
    suites: Sequence[RewardSuite],
    scorer: BackgroundScorer,
    batches: Sequence[SamplingPlan],
    denoiser: Callable[..., Any],
    trainer_state: Any,
) -> list[dict[str, float]]:
    """
    Sample and score.

    Args:
        policy ([`LogProbPipeline`]):
            What is evaluated, with `denoiser`.
        suites (`Sequence[RewardSuite]`):
            The rewards that are trained on, with detectors, then any others.
        scorer ([`BackgroundScorer`]):
            Where they run.
        batches (`Sequence[SamplingPlan]`):
            Prompts and seeds of images that are sampled at once.
        denoiser (`Callable`):
            As it is trained.
        trainer_state (`TrainerState`):
            Handed to the rewards.

    Returns:
        `list[dict[str, float]]`, one for each image: `reward`, the weighted sum of what is trained on, `rewards/{name}` and
        `detectors/{name}`; NaN for none.
    """
    with scorer.overlapping() as scoring:
        for batch in batches:
            images = policy.sample(batch.prompts, image_generators(batch.seeds), denoiser=denoiser).images
            scoring.put(partial(_scores, suites, images, batch.image_rows, trainer_state))
    return [_record(scores, image) for scores in scoring.results for image in range(len(scores[0].total))]


def _scores(suites: Sequence[RewardSuite], *batch: Any) -> list[Scores]:
    return [suite.score(*batch) for suite in suites]


def _record(scores: Sequence[Scores], image: int) -> dict[str, float]:
    values = {name: float(column[image]) for part in scores for name, column in part.by_record_name.items()}
    return {"reward": float(scores[0].total[image]), **values}


def evaluation_metrics(records: Sequence[dict[str, float]], prefix: str) -> dict[str, float]:
    """
    Return `{prefix}_reward`, `{prefix}_reward_std`, `{prefix}_rewards/{name}/mean`, of the images with a reward, and
    `{prefix}_detectors/{name}/mean` and `/max`.
    """
    columns = {name: np.array([record[name] for record in records]) for name in records[0]}
    total = columns.pop("reward")
    metrics = {f"{prefix}_reward": _mean(total), f"{prefix}_reward_std": _std(total)}
    for name, values in columns.items():
        metrics[f"{prefix}_{name}/mean"] = _mean(values)
        if name.startswith("detectors/"):
            metrics[f"{prefix}_{name}/max"] = _max(values)
    return metrics


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _max(values: np.ndarray) -> float:
    return float(np.nanmax(values)) if not np.isnan(values).all() else float("nan")


def _std(values: np.ndarray) -> float:
    return float(np.nanstd(values)) if not np.isnan(values).all() else float("nan")
