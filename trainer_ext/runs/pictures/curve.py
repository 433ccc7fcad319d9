"""The reward curve."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...loop.describing import described_as
from ..atomic import replacing
from ..folder import RunFolder


@described_as("The reward curve")
def draw_reward_curve(folder: RunFolder) -> None:
    """Draw the rewards of rollouts, whose prompts differ, and those of the fixed samples, which can be compared."""
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    _draw_rollouts(axes, folder)
    _draw_samples(axes, folder)
    axes.set(xlabel="rollouts trained on", ylabel="reward", title="Reward through training")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    with replacing(folder.curve_file) as place:
        figure.savefig(place)


def _draw_rollouts(axes: Axes, folder: RunFolder) -> None:
    rewards = {index: values for index, values in folder.rewards().items() if len(values)}
    if not rewards:
        return
    rollouts = np.array(list(rewards))
    mean = np.array([values.mean() for values in rewards.values()])
    std = np.array([values.std() for values in rewards.values()])
    axes.fill_between(rollouts, mean - std, mean + std, alpha=0.2, label="rollout, ± 1 std of its images")
    axes.plot(rollouts, mean, marker="o", markersize=3, label="rollout, mean (prompts differ)")


def _draw_samples(axes: Axes, folder: RunFolder) -> None:
    sheets = [sheet for sheet in folder.samples() if not np.isnan(sheet.rewards).all()]
    if sheets:
        means = [np.nanmean(sheet.rewards) for sheet in sheets]
        places = [sheet.records[0]["rollouts"] for sheet in sheets]
        axes.plot(places, means, marker="s", color="black", label="fixed prompts and seeds, mean")
