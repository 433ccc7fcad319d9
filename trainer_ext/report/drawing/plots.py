"""The plots of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...runs.pictures.style import Style, styles
from ...types import FloatArray
from ..progress import Band, Progress
from .svg import FADED, INK, RULES, Plot, plot

LEFT, BOTTOM, RIGHT, TOP = 0.75, 0.55, 0.1, 0.2  #: margins in inches
WIDTH = 5.6  #: inches of a plot
MAX_MARKERS = 40  #: on a curve


@contextmanager
def drawing(width: float = WIDTH, height: float = 3.3) -> Iterator[Figure]:
    """Context manager that gives a figure to draw on, in inches. Its margins are fixed: a layout engine takes half the time."""
    with matplotlib.rc_context(RULES):
        figure = Figure(figsize=(width, height))
        left, bottom, right, top = LEFT / width, BOTTOM / height, 1 - RIGHT / width, 1 - TOP / height
        figure.subplots_adjust(left, bottom, right, top, hspace=0.8)
        yield figure


def draw_band(axes: Axes, places: FloatArray, band: Band, style: Style, label: str) -> None:
    """Draw a mean with its interval."""
    every = max(1, len(places) // MAX_MARKERS)
    (line,) = axes.plot(places, band.mean, style.line, color=style.color, label=label)
    line.set(marker=style.marker, markevery=every)
    axes.fill_between(places, band.low, band.high, color=style.color, alpha=0.18, linewidth=0)


def of_evaluations(progress: Progress, chosen: float | None, name: str) -> list[Plot]:
    """
    Draw the evaluations of a dataset: proxy and gold over reward queries, and over the root of the KL divergence where that was
    measured, then all other measures.
    """
    kl = np.sqrt(np.maximum(progress.kl, 0.0))
    plots = [_proxy_and_gold(progress, progress.queries, chosen, "images scored for training", f"{name}-queries")]
    if np.isfinite(kl).sum() > 1:
        label = "square root of the KL divergence to the base model (nats an image)"
        plots.append(_proxy_and_gold(progress, kl, chosen, label, f"{name}-kl"))
    if progress.measures:
        title, names = "Other measures against updates", f"{name}-measures"
        plots.append(small_multiples(title, progress.measures, progress.updates, "updates", names))
    return plots


def _proxy_and_gold(progress: Progress, places: FloatArray, chosen: float | None, label: str, name: str) -> Plot:
    """Draw both under one another: their scales can differ by orders of magnitude."""
    order = np.argsort(places, kind="stable")
    order = order[np.isfinite(places[order])]
    bands = {"trained reward (proxy)": progress.proxy, "held-out rewards (gold)": progress.gold}
    drawn = {title: band for title, band in bands.items() if band is not None}
    (found,) = np.nonzero(progress.updates[order] == chosen)
    with drawing(WIDTH, 0.6 + 1.9 * len(drawn)) as figure:
        figure.subplots_adjust(hspace=0.35)
        each: list[Axes] = list(figure.subplots(len(drawn), sharex=True, squeeze=False)[:, 0])
        for axes, (title, band), style in zip(each, drawn.items(), styles(), strict=False):
            axes.axhline(0, color=FADED, linewidth=0.8)
            draw_band(axes, places[order], Band(band.mean[order], band.low[order], band.high[order]), style, title)
            _show_means(axes, band.mean[order])
            for index in found:
                axes.axvline(places[order][index], color=INK, linestyle="--", linewidth=1)
                axes.plot(places[order][index], band.mean[order][index], color=INK, marker="*", markersize=11)
            axes.set_title(title, loc="left", fontsize=9)
        each[-1].set_xlabel(label)
    return plot(f"Gain over the base model against {label}", figure, name)


def _show_means(axes: Axes, means: FloatArray) -> None:
    """Cut intervals that would make the curve flat: those of a few images can be wide."""
    known = means[np.isfinite(means)]
    if len(known) and np.ptp(known):
        low, high = axes.get_ylim()
        margin = 0.6 * np.ptp(known)
        axes.set_ylim(max(low, known.min() - margin), min(high, known.max() + margin))


def rewards_of_rollouts(rewards: Mapping[int, FloatArray]) -> Plot | None:
    """Draw the mean reward of each rollout, with the standard deviation of its images; `None` without rollouts."""
    scored = {index: values[~np.isnan(values)] for index, values in rewards.items()}
    scored = {index: values for index, values in scored.items() if len(values)}
    if not scored:
        return None
    mean, std = (np.array([measure(values) for values in scored.values()]) for measure in (np.mean, np.std))
    with drawing() as figure:
        axes = figure.add_subplot()
        draw_band(axes, np.array(list(scored)), Band(mean, mean - std, mean + std), next(styles()), "mean ± 1 std")
        axes.set(xlabel="rollout", ylabel="reward")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return plot(
        "Reward of each rollout: mean and standard deviation of its images (prompts differ)", figure, "rollouts"
    )


def detections(series: Mapping[str, tuple[FloatArray, Band]], label: str, name: str) -> Plot | None:
    """Draw the mean score of each detector; `None` without any score."""
    seen = {title: (places, band) for title, (places, band) in series.items() if np.isfinite(band.mean).any()}
    if not seen:
        return None
    with drawing() as figure:
        axes = figure.add_subplot()
        for (title, (places, band)), style in zip(seen.items(), styles(), strict=False):
            draw_band(axes, places, band, style, title)
        axes.set(xlabel=label, ylabel="mean score", ylim=(-0.03, 1.03))
        axes.legend()
    return plot(f"Mean score of each detector against {label}", figure, name)


def small_multiples(title: str, series: Mapping[str, FloatArray], places: FloatArray, label: str, name: str) -> Plot:
    """Draw each series on axes of its own, one under another."""
    with drawing(WIDTH, 1.2 * len(series) + 0.6) as figure:
        each: list[Axes] = list(figure.subplots(len(series), sharex=True, squeeze=False)[:, 0])
        for axes, (measure, values), style in zip(each, series.items(), styles(), strict=False):
            axes.plot(
                places, values, color=style.color, marker=style.marker, markevery=max(1, len(places) // MAX_MARKERS)
            )
            axes.set_title(measure, loc="left", fontsize=9)
            axes.yaxis.set_major_locator(MaxNLocator(3))
        each[-1].set_xlabel(label)
    return plot(title, figure, name)
