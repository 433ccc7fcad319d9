"""The figures of one evaluation, which are logged as its metrics."""

from __future__ import annotations

from collections.abc import Sequence

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
    `pixels/{name}`; as far as they were measured `kl`, `diversity`, `diversity_min` and `collapsed`; and with held-out rewards
    and a base `gold` and `disagreement`. NaN where all values are missing.

    Args:
        records (`Sequence[Record]`):
            Records of the evaluation.
        base (`Sequence[Record]`, *optional*):
            Records of the same rows before training.
        held_out (`Sequence[str]`):
            Columns of the held-out rewards.
    """
    names = [name for name in records[0] if name.startswith((REWARDS, DETECTORS))]
    total = column(records, "reward")
    figures = {
        "reward": mean(total),
        "reward_std": _std(total),
        **{f"{name}/mean": mean(column(records, name)) for name in names},
        **{f"{name}/max": _highest(column(records, name)) for name in names if name.startswith(DETECTORS)},
        **(_gains(*matched(records, base), held_out) if base and held_out else {}),
    }
    measured = {
        "kl": mean(column(records, "kl")),
        **{name: mean(column(records, name)) for name in records[0] if name.startswith(PIXELS)},
        **_spread(records, base or ()),
    }
    complete = {name: float("nan") if value is None else value for name, value in figures.items()}
    return complete | {name: value for name, value in measured.items() if value is not None}


def _gains(records: Sequence[Record], base: Sequence[Record], held_out: Sequence[str]) -> dict[str, float | None]:
    return {"gold": gold(records, base, held_out), "disagreement": disagreement(records, base, held_out)}


def _spread(records: Sequence[Record], base: Sequence[Record]) -> dict[str, float | None]:
    values = list(diversities(records).values())
    return {
        "diversity": float(np.mean(values)) if values else None,
        "diversity_min": min(values, default=None),
        "collapsed": collapsed(*matched(records, base)),
    }


def _std(values: FloatArray) -> float | None:
    present = values[~np.isnan(values)]
    return float(present.std()) if len(present) else None


def _highest(values: FloatArray) -> float | None:
    present = values[~np.isnan(values)]
    return float(present.max()) if len(present) else None
