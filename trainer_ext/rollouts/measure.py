"""The records and metrics of a rollout's images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddpo_plugins.errors import RewardError
from ddpo_plugins.names import DETECTORS, REWARDS

from ..runs.measures.formulas import column
from ..scoring.scores import Scores
from .schedule import SamplingPlan


def image_records(moment: Mapping[str, Any], plan: SamplingPlan, scores: Scores) -> list[dict[str, Any]]:
    """
    Describe each image of a plan.

    Args:
        moment (`Mapping[str, Any]`):
            The first columns of each record, which say when the images were sampled.
        plan ([`SamplingPlan`]):
            Prompts and seeds of B images.
        scores ([`Scores`]):
            Their rewards.

    Returns:
        `list[dict]`, length B: `moment`, seed, prompt, reward (weighted sum), `rewards/{name}`, `detectors/{name}`, and the
        values that these logged with `log_extra`. A missing reward is `None`.
    """
    columns = scores.by_record_name
    return [
        {
            **moment,
            "seed": seed,
            "prompt": prompt,
            "reward": _or_none(total),
            **{name: _or_none(values[image]) for name, values in columns.items()},
            **{name: extra[image] for name, extra in scores.extras.items()},  # never a name of those before
        }
        for image, (seed, prompt, total) in enumerate(zip(plan.seeds, plan.prompts, scores.total, strict=True))
    ]


def reward_metrics(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """
    Return the metrics of a rollout's rewards: mean and standard deviation of those that are not missing.

    Args:
        records (`Sequence[Mapping]`):
            Records from [`image_records`], of all processes.
        names (`Sequence[str]`):
            Names of the reward functions.

    Raises:
        [`RewardError`]: no image got a reward.
    """
    total = column(records, "reward")
    if np.isnan(total).all():
        raise RewardError(
            "No image of this rollout got a reward (every reward was None), so there is nothing to learn from."
        )
    metrics = {
        "reward": np.nanmean(total),
        "reward_std": np.nanstd(total),
        "frac_reward_missing": np.isnan(total).mean(),
    }
    for name in names:
        values = column(records, f"{REWARDS}{name}")
        if not np.isnan(values).all():
            metrics |= {f"{REWARDS}{name}/mean": np.nanmean(values), f"{REWARDS}{name}/std": np.nanstd(values)}
    return {name: float(value) for name, value in metrics.items()}


def detection_metrics(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Return `detectors/{name}/mean` and `/max` over the images that a detector could judge."""
    metrics = {}
    for name in names:
        values = column(records, f"{DETECTORS}{name}")
        if not np.isnan(values).all():
            metrics[f"{DETECTORS}{name}/mean"] = float(np.nanmean(values))
            metrics[f"{DETECTORS}{name}/max"] = float(np.nanmax(values))
    return metrics


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
