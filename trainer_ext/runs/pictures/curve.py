"""The reward curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...loop.describing import described_as
from ...types import FloatArray
from ..atomic import replacing
from ..drawings import SampleSheet
from ..folder import RunFolder
from .style import Style, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@described_as("The reward curve")
def draw_reward_curve(folder: RunFolder) -> None:
    """
    Draw the rewards of rollouts, whose prompts differ, and those of the fixed samples, which can be compared. A single moment is
    no curve.
    """
    rewards = {index: values for index, values in folder.rewards().items() if len(values)}
    sheets = [sheet for sheet in folder.samples() if not np.isnan(sheet.rewards).all()]
    if max(len(rewards), len(sheets)) < 2:
        return
    from matplotlib.figure import Figure  # here, because it takes a second, in which a run could begin
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), dpi=120)
    axes = figure.add_subplot()
    # a layout that is computed draws everything twice
    figure.subplots_adjust(left=0.12, right=0.97, bottom=0.13, top=0.92)
    looks = styles()
    _draw_rollouts(axes, rewards, next(looks))
    _draw_samples(axes, sheets, next(looks))
    axes.set(xlabel="rollouts trained on", ylabel="reward", title="Reward through training")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(folder.curve_file) as place:
        figure.savefig(place)


def _draw_rollouts(axes: Axes, rewards: Mapping[int, FloatArray], look: Style) -> None:
    if not rewards:
        return
    rollouts = np.array(list(rewards))
    mean = np.array([values.mean() for values in rewards.values()])
    std = np.array([values.std() for values in rewards.values()])
    axes.fill_between(
        rollouts, mean - std, mean + std, color=look.color, alpha=0.2, label="rollout, ± 1 std of its images"
    )
    axes.plot(
        rollouts, mean, color=look.color, marker=look.marker, markersize=3, label="rollout, mean (prompts differ)"
    )


def _draw_samples(axes: Axes, sheets: Sequence[SampleSheet], look: Style) -> None:
    if sheets:
        means = [np.nanmean(sheet.rewards) for sheet in sheets]
        places = [sheet.records[0]["rollouts"] for sheet in sheets]
        axes.plot(places, means, color=look.color, marker=look.marker, label="fixed prompts and seeds, mean")
