"""The files of a run that people look at: every image's reward as Parquet, and the reward curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ddpo_plugins.errors import RewardError

from .advantages import FloatArray
from .files import replacing
from .rewards import RECORD_FIELDS, Scores
from .rollout import Assignment

FOLDER = "rollouts"


def image_records(index: int, assignment: Assignment, scores: Scores) -> list[dict[str, Any]]:
    """
    Describe each image of one process's share of a rollout.

    Returns:
        `list[dict]`, length B: rollout, seed, prompt, reward (weighted sum), `rewards/{name}`, what the rewards logged with
        `log_extra`. A missing reward is `None`.
    """
    return [
        {
            **dict(zip(RECORD_FIELDS, (index, seed, prompt, _or_none(total)), strict=True)),
            **{f"rewards/{name}": _or_none(value) for name, value in zip(scores.names, values, strict=True)},
            **{name: extra[image] for name, extra in scores.extras.items()},
        }
        for image, (seed, prompt, total, values) in enumerate(
            zip(assignment.seeds, assignment.prompts, scores.total, scores.values, strict=True)
        )
    ]


def write_records(output_dir: Path, index: int, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one rollout's records; `datasets.load_dataset("parquet", data_dir=...)` reads them all."""
    folder = output_dir / FOLDER
    names = dict.fromkeys(name for record in records for name in record)  # some processes may have logged more
    with replacing(folder / f"rollout-{index:05d}.parquet") as file:
        pq.write_table(pa.table({name: [record.get(name) for record in records] for name in names}), file)


def reward_metrics(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """
    Return what is logged about the rewards of a rollout: mean and standard deviation of those there are.

    Args:
        records (`Sequence[Mapping]`):
            From [`image_records`], of all processes.
        names (`Sequence[str]`):
            Of the reward functions.

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
        values = column(records, f"rewards/{name}")
        if not np.isnan(values).all():
            metrics |= {f"rewards/{name}/mean": np.nanmean(values), f"rewards/{name}/std": np.nanstd(values)}
    return {name: float(value) for name, value in metrics.items()}


def column(records: Sequence[Mapping[str, Any]], name: str) -> FloatArray:
    """Return one number of every record `(B,)`, NaN for none."""
    return np.array([record[name] for record in records], np.float64)


def read_rewards(output_dir: Path) -> dict[int, np.ndarray]:
    """Return the rewards of each rollout so far, by index."""
    tables = (
        pq.read_table(file, columns=["rollout", "reward"]) for file in sorted((output_dir / FOLDER).glob("*.parquet"))
    )
    return {table["rollout"][0].as_py(): table["reward"].drop_null().to_numpy() for table in tables}


def draw_reward_curve(output_dir: Path) -> Path:
    """Draw mean and standard deviation of the reward over rollouts as `reward_curve.png`."""
    rewards = {index: values for index, values in read_rewards(output_dir).items() if len(values)}
    rollouts = np.array(list(rewards))
    mean = np.array([values.mean() for values in rewards.values()])
    std = np.array([values.std() for values in rewards.values()])
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(rollouts, mean - std, mean + std, alpha=0.2, label="± 1 std of the images")
    axes.plot(rollouts, mean, marker="o", markersize=3, label="mean of the images")
    axes.set(xlabel="rollout", ylabel="reward", title="Reward through training")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    file = output_dir / "reward_curve.png"
    with replacing(file) as place:
        figure.savefig(place)
    return file


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
