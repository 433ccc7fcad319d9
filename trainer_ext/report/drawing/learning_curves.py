"""Learning curves of several runs in one plot: a mean with a band for runs that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ...runs.measures.formulas import column, mean
from ...runs.pictures.style import styles
from ...types import FloatArray
from ..facts import RunFacts
from ..progress import Progress
from .plots import MAX_MARKERS, WIDTH, drawing

MOST_INSIDE = 4  #: labels of a legend that has place among the curves
LINE, LETTER = 1.7, 0.1  #: inches of one beside them: its lines and "(mean of 3)", and each letter of the longest label


class Curve(NamedTuple):
    """
    One value of a run through training.

    Parameters:
        places, values (`np.ndarray` of shape `(N,)`):
            Where it was measured, in rising order, and what it was; NaN is left out.
    """

    places: FloatArray
    values: FloatArray


def draw_curves(curves: Mapping[str, Sequence[Curve]], xlabel: str, ylabel: str) -> Figure:
    """
    Draw the runs of each label thin, their mean thick, and a band from the lowest run to the highest.

    Args:
        curves (`Mapping[str, Sequence[Curve]]`):
            The runs by label.
        xlabel, ylabel (`str`):
            Names of the axes.
    """
    beside = len(curves) > MOST_INSIDE
    legend = LINE + LETTER * max(map(len, curves)) if beside else 0.0
    with drawing(WIDTH + legend) as figure:
        figure.subplots_adjust(right=figure.subplotpars.right - legend / figure.get_figwidth())
        axes = figure.add_subplot()
        for (label, runs), style in zip(curves.items(), styles(), strict=False):
            places, values = on_one_grid(runs)
            if not len(places):
                continue
            title = label if len(values) == 1 else f"{label} (mean of {len(values)})"
            every = max(1, len(places) // MAX_MARKERS)
            (line,) = axes.plot(places, values.mean(axis=0), style.line, color=style.color, label=title)
            line.set(marker=style.marker, markevery=every)
            if len(values) > 1:
                axes.plot(places, values.T, color=style.color, linewidth=0.7, alpha=0.4)
                lowest, highest = values.min(axis=0), values.max(axis=0)
                axes.fill_between(places, lowest, highest, color=style.color, alpha=0.15, linewidth=0)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(**{"loc": "center left", "bbox_to_anchor": (1.02, 0.5)} if beside else {})
    return figure


def on_one_grid(runs: Sequence[Curve]) -> tuple[FloatArray, FloatArray]:
    """
    Return places `(M,)` where all R runs that have values have been, and each one's values there `(R, M)`, straight between its
    own.
    """
    known = [(curve, np.isfinite(curve.values)) for curve in runs]
    whole = [Curve(curve.places[kept], curve.values[kept]) for curve, kept in known if kept.any()]
    if not whole:
        return np.empty(0), np.empty((0, 0))
    first = max(curve.places[0] for curve in whole)
    last = min(curve.places[-1] for curve in whole)
    places = np.unique(np.concatenate([curve.places for curve in whole]))
    places = places[(places >= first) & (places <= last)]
    return places, np.array([np.interp(places, *curve) for curve in whole])


def of_rollouts(facts: RunFacts) -> Curve:
    """Return the mean reward of each rollout over the images that were scored before it."""
    means = [mean(rewards) for rewards in facts.rewards.values()]
    return Curve(np.array([facts.queries(index) for index in range(len(means))]), np.array(means, np.float64))


def of_rewards(facts: RunFacts, dataset: str) -> Curve:
    """Return the mean reward of each evaluation of a dataset."""
    moments = facts.evaluations[dataset]
    means = [mean(column(moment.records, "reward")) for moment in moments]
    return Curve(np.array([facts.queries(moment.rollouts) for moment in moments]), np.array(means, np.float64))


def of_gold(facts: RunFacts, dataset: str) -> Curve:
    """Return the gain in held-out rewards at each evaluation of a dataset; NaN where none ran."""
    progress = Progress.of(facts, facts.evaluations[dataset])
    return Curve(progress.queries, _gold(progress))


def of_gold_over_kl(facts: RunFacts, dataset: str) -> Curve:
    """Return the same over the root of the KL divergence to the base model."""
    progress = Progress.of(facts, facts.evaluations[dataset])
    known = np.isfinite(progress.kl)
    places, values = np.sqrt(np.maximum(progress.kl[known], 0.0)), _gold(progress)[known]
    order = np.argsort(places, kind="stable")
    return Curve(places[order], values[order])


def _gold(progress: Progress) -> FloatArray:
    if progress.gold is None or not progress.relative:
        return np.full(len(progress.kl), np.nan)
    return progress.gold.mean
