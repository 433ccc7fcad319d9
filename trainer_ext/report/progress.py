"""How rewards, detectors and the distance to the base model went through the evaluations of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ddpo_plugins.names import DETECTORS, PIXELS

from ..runs.measures import evaluation_figures
from ..runs.measures.formulas import column, gold_changes
from ..runs.measures.paired import student_interval
from ..types import FloatArray
from .facts import RunFacts
from .moments import Moment

MEASURES = ("disagreement", "diversity", "diversity_min", "collapsed")  #: beside the pixels', in plots of their own


@dataclass(frozen=True)
class Band:
    """
    A mean with its interval, at E moments.

    Parameters:
        mean, low, high (`np.ndarray` of shape `(E,)`):
            The mean and Student's 95 % interval; NaN where there is none.
    """

    mean: FloatArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def of(cls, samples: Sequence[FloatArray]) -> Band:
        """Return the mean and interval of each sample; NaN in it is left out."""
        return cls(*np.array([mean_and_interval(values) for values in samples]).reshape(-1, 3).T)


@dataclass(frozen=True)
class Progress:
    """
    The evaluations of one dataset, E of them. Rewards are in standard deviations of the base model's images, and 0 at its mean.

    Parameters:
        updates, queries (`np.ndarray` of shape `(E,)`):
            Optimizer updates, and images scored for training, before each evaluation.
        kl (`np.ndarray` of shape `(E,)`):
            KL divergence to the base model, nats an image; NaN where it was not measured.
        proxy ([`Band`]):
            The reward that is trained.
        gold ([`Band`], *optional*):
            Mean of the held-out rewards; `None` where none ran.
        detectors (`Mapping[str, Band]`):
            Score of each detector, in [0, 1].
        measures (`Mapping[str, np.ndarray]` of shape `(E,)`):
            Disagreement, diversity and the figures of pixels, as far as they were measured; see [`evaluation_figures`].
        relative (`bool`):
            False where there is no evaluation before training: then the first one takes its place.
    """

    updates: FloatArray
    queries: FloatArray
    kl: FloatArray
    proxy: Band
    gold: Band | None
    detectors: Mapping[str, Band]
    measures: Mapping[str, FloatArray]
    relative: bool

    @classmethod
    def of(cls, facts: RunFacts, moments: Sequence[Moment]) -> Progress:
        """Measure the evaluations of one dataset, the earliest first."""
        held_out = [name for name in facts.held_out if any(name in record for record in moments[0].records)]
        return cls(
            updates=np.array([moment.updates for moment in moments], np.float64),
            queries=np.array([facts.queries(moment.rollouts) for moment in moments]),
            kl=np.array([mean_and_interval(column(moment.records, "kl"))[0] for moment in moments]),
            proxy=Band.of([_gains(moments[0], moment, ["reward"]) for moment in moments]),
            gold=Band.of([_gains(moments[0], moment, held_out) for moment in moments]) if held_out else None,
            detectors={
                name: Band.of([column(moment.records, f"{DETECTORS}{name}") for moment in moments])
                for name in facts.detectors
            },
            measures=_measures(moments, held_out) if facts.evaluations else {},
            relative=moments[0].updates == 0,
        )


def _measures(moments: Sequence[Moment], held_out: Sequence[str]) -> dict[str, FloatArray]:
    base = moments[0].records if moments[0].updates == 0 else None
    each = [evaluation_figures(moment.records, base, held_out) for moment in moments]
    names = [*(name for name in MEASURES if name in each[-1]), *(name for name in each[-1] if name.startswith(PIXELS))]
    return {name: np.array([figures.get(name, np.nan) for figures in each]) for name in names}


def mean_and_interval(values: FloatArray) -> tuple[float, float, float]:
    """Return the mean of a sample `(B,)` and Student's interval; NaN for what cannot be said."""
    present = values[~np.isnan(values)]
    return (float(present.mean()), *student_interval(present)) if len(present) else (np.nan, np.nan, np.nan)


def _gains(base: Moment, moment: Moment, columns: Sequence[str]) -> FloatArray:
    """Return how much each image gained on the base model's image of the same prompt and seed; see [`gold_changes`]."""
    return gold_changes(base.records, base.records, moment.records, columns)
