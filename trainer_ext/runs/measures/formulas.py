"""
Formulas of over-optimisation, on the records of evaluations, of which the first is that of the model before training.

Records of two evaluations are those of the same rows, prompts and seeds, so that each image is compared with its own base.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby, pairwise
from operator import itemgetter

import numpy as np

from ddpo_plugins.names import DETECTORS, PIXELS, REWARDS

from ...types import FloatArray
from ..records import Record

Records = Sequence[Record]

COLLAPSE = 0.5  #: share of its base's diversity below which a prompt has collapsed
DRIFT = 2.0  #: standard deviations of the base's images beyond which pictures have drifted


def column(records: Records, name: str) -> FloatArray:
    """Return one number of every record `(B,)`, NaN where it is missing."""
    return np.array([record.get(name) for record in records], np.float64)


def mean(values: FloatArray) -> float | None:
    """Return the mean of the values that are not missing; None if all are."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else None


def matched(records: Records, base: Records) -> tuple[list[Record], list[Record]]:
    """Return the images that are in both evaluations, pair by pair."""
    before = {_identity(record): record for record in base}
    both = [record for record in records if _identity(record) in before]
    return both, [before[_identity(record)] for record in both]


def _identity(record: Record) -> tuple[object, ...]:
    return record.get("row"), record["seed"], record["prompt"]  # fixed samples are of no dataset


def same_images(records: Records, others: Records) -> bool:
    """Return whether two evaluations have the same rows, prompts and seeds."""
    return list(map(_identity, records)) == list(map(_identity, others))


def measured_columns(records: Records) -> set[str]:
    """Return the columns of rewards and detectors in which an image has a value."""
    return {
        name
        for record in records
        for name, value in record.items()
        if name.startswith((REWARDS, DETECTORS)) and value is not None
    }


def standardised(records: Records, base: Records, columns: Sequence[str]) -> FloatArray:
    """
    Return rewards `(B, K)` in standard deviations of the base's images: (x - base mean) / base std.

    A reward that is the same for all images of the base, which nothing can be measured by, is left out.
    """
    scales = _scales(base, columns)
    values = [(column(records, name) - centre) / std for name, (centre, std) in scales.items()]
    return np.stack(values, axis=1) if values else np.empty((len(records), 0))


def _scales(base: Records, columns: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation of each reward that tells the base's images apart."""
    values = {name: column(base, name) for name in columns}
    present = {name: numbers[~np.isnan(numbers)] for name, numbers in values.items()}
    return {name: (float(x.mean()), float(x.std())) for name, x in present.items() if len(x) and np.ptp(x) > 0}


def gold_changes(base: Records, first: Records, last: Records, columns: Sequence[str]) -> FloatArray:
    """
    Return the mean change over rewards of each image `(n,)`, in the base's standard deviations, over the rewards that it has both
    in `first` and in `last`. Images that have none are left out.
    """
    after, before = matched(last, first)
    changes = standardised(after, base, columns) - standardised(before, base, columns)
    present = ~np.isnan(changes)
    kept = present.any(axis=1)
    return np.where(present, changes, 0.0)[kept].sum(axis=1) / present[kept].sum(axis=1)


def gold(records: Records, base: Records, held_out: Sequence[str]) -> float | None:
    """
    Return what was really gained: the mean over images of [`gold_changes`] since before training. Where every image has all
    held-out rewards, that is the mean over these of (mean - base mean) / base std (Gao et al., 2022, whose gold reward is one
    model). None where no image has a held-out reward in both evaluations.

    Args:
        records, base (`Sequence[Record]` of length B):
            Records of the same images, now and before training.
        held_out (`Sequence[str]` of length K):
            Columns of the held-out rewards.
    """
    return mean(gold_changes(base, base, records, held_out))


def win_rates(values: FloatArray, others: FloatArray) -> FloatArray:
    """Return the share of `others` `(N,)` that each value `(B,)` beats, with ties as a half; NaN where it is missing."""
    others = others[~np.isnan(others)]
    if not len(others):
        return np.full(len(values), np.nan)
    wins = (values[:, None] > others).mean(axis=1) + 0.5 * (values[:, None] == others).mean(axis=1)
    return np.where(np.isnan(values), np.nan, wins)


def disagreement(records: Records, base: Records, held_out: Sequence[str]) -> float | None:
    """
    Return the mean of GARDO's uncertainty U (arXiv:2512.24138, eq. 7) over images: the win rate of the trained reward minus the
    mean win rate of the held-out ones, against the base's images. 0 before training; None without held-out rewards.
    """
    rates = [win_rates(column(records, name), column(base, name)) for name in held_out]
    if not rates:
        return None
    stacked = np.stack(rates)
    present = ~np.isnan(stacked)
    others = np.where(present, stacked, 0.0).sum(axis=0) / np.where(present.any(axis=0), present.sum(axis=0), np.nan)
    return mean(win_rates(column(records, "reward"), column(base, "reward")) - others)


def diversities(records: Records) -> dict[Hashable, float]:
    """Return the diversity of each row's images: their mean cosine distance. Empty where rows have one image."""
    rows = groupby(sorted(records, key=itemgetter("row")), key=itemgetter("row"))
    means = {row: mean(column(list(images), "diversity")) for row, images in rows}
    return {row: value for row, value in means.items() if value is not None}


def collapsed(records: Records, base: Records) -> float | None:
    """Return the share of rows whose diversity is below half of the base's; None where rows have one image."""
    now, before = diversities(records), diversities(base)
    pairs = [(now[row], before[row]) for row in now if row in before]
    return float(np.mean([after < COLLAPSE * first for after, first in pairs])) if pairs else None


def drifted(evaluations: Sequence[Records]) -> list[str]:
    """
    Return the figures of pixels that moved one way from each evaluation to the next, and by more than two standard deviations
    of the base's images in all. The base is the first; at least two must follow.
    """
    names = [name for name in dict.fromkeys(evaluations[0][0]) if name.startswith(PIXELS)] if evaluations else []
    return [name for name in names if _has_drifted([column(records, name) for records in evaluations])]


def _has_drifted(evaluations: Sequence[FloatArray]) -> bool:
    means = [mean(values) for values in evaluations]
    present = [value for value in means if value is not None]
    if len(present) < max(len(means), 3):
        return False
    steps = np.array([after - before for before, after in pairwise(present)])
    one_way = bool((steps > 0).all() or (steps < 0).all())
    return one_way and abs(present[-1] - present[0]) > DRIFT * float(np.nanstd(evaluations[0]))
