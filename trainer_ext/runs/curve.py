"""The reward curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .atomic import replacing
from .records import read_rewards


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
