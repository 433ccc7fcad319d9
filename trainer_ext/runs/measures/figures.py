"""The figures of one evaluation, which are logged as its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ddpo_plugins.names import DETECTORS, PIXELS, REWARDS

from ...types import FloatArray
from ..records import Record
from .formulas import collapsed, column, disagreement, diversities, gold, matched, mean


def evaluation_figures(
    records: Sequence[Record], base: Sequence[Record] | None, held_out: Sequence[str]
) -> dict[str, float]:
    """
    Return an evaluation's metrics: `reward`, `reward_std`, `rewards/{name}/mean`, `detectors/{name}/mean` and `/max`,
    `pixels/{name}`, and as far as they were measured `kl`, `diversity`, `diversity_min`, `gold`, `disagreement`, `collapsed`.

    Args:
        records (`Sequence[Record]`):
            Records of the evaluation.
        base (`Sequence[Record]`, *optional*):
            Records of the same rows before training.
        held_out (`Sequence[str]`):
            Columns of the held-out rewards.
    """
    names = [name for name in records[0] if name.startswith((REWARDS, DETECTORS))]
    pixels = [name for name in records[0] if name.startswith(PIXELS)]
    total = column(records, "reward")
    present = total[~np.isnan(total)]
    spread = list(diversities(records).values())
    figures = {
        "reward": mean(total),
        "reward_std": float(present.std()) if len(present) else None,
        **{f"{name}/mean": mean(column(records, name)) for name in names},
        **{f"{name}/max": _highest(column(records, name)) for name in names if name.startswith(DETECTORS)},
    }
    measured = {
        "kl": mean(column(records, "kl")),
        "diversity": float(np.mean(spread)) if spread else None,
        "diversity_min": min(spread, default=None),
        **{name: mean(column(records, name)) for name in pixels},
        **(_against(*matched(records, base), held_out) if base else {}),
    }
    missing = {name: float("nan") if value is None else value for name, value in figures.items()}
    return missing | {name: value for name, value in measured.items() if value is not None}


def _highest(values: FloatArray) -> float | None:
    present = values[~np.isnan(values)]
    return float(present.max()) if len(present) else None


def _against(records: Sequence[Record], base: Sequence[Record], held_out: Sequence[str]) -> Mapping[str, float | None]:
    if not records:
        return {}
    return {
        "gold": gold(records, base, held_out),
        "disagreement": disagreement(records, base, held_out),
        "collapsed": collapsed(records, base),
    }
