"""Heat maps of what the optimiser did to each denoising step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...types import FloatArray
from .plots import drawing
from .svg import Plot, plot


@dataclass(frozen=True)
class Measure:
    """
    How a figure of denoising steps is drawn.

    Parameters:
        title (`str`):
            Its name for readers.
        logarithmic (`bool`):
            Draw its decimal logarithm: it differs by orders of magnitude between steps.
        centre (`float`, *optional*):
            The value in the middle of the colours; by default these go from the lowest value to the highest.
    """

    title: str
    logarithmic: bool = False
    centre: float | None = None


MEASURES = {
    "ratio": Measure("Mean ratio of the new policy to the one that sampled", centre=1.0),
    "approx_kl": Measure("log10 of the KL divergence from the policy that sampled", logarithmic=True),
    "clipfrac": Measure("Share of clipped ratios"),
    "kl": Measure("log10 of the KL divergence to the base model", logarithmic=True),
}


def step_maps(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Draw each measure by denoising step and rollout; `rows` are those of [`RunFolder.steps`]."""
    grids = {name: _grid(rows, name) for name in MEASURES} if rows else {}
    return [_heat_map(name, *grid) for name, grid in grids.items() if np.isfinite(grid[0]).any()]


def _grid(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[FloatArray, list[float], list[int]]:
    """Return a measure by step and log `(S, L)`, NaN where it is not finite, with the rollouts at the logs, and the steps."""
    places, steps = (sorted({row[key] for row in rows}) for key in ("rollouts", "step"))
    values = np.full((len(steps), len(places)), np.nan)
    for row in rows:
        values[steps.index(row["step"]), places.index(row["rollouts"])] = row.get(name)
    if MEASURES[name].logarithmic:
        values = np.log10(values, where=values > 0, out=np.full_like(values, np.nan))
    return np.where(np.isfinite(values), values, np.nan), places, steps


def _heat_map(name: str, values: FloatArray, places: Sequence[float], steps: Sequence[int]) -> Plot:
    measure = MEASURES[name]
    spread = 0.0 if measure.centre is None else float(np.nanmax(np.abs(values - measure.centre)))
    low, high = (None, None) if measure.centre is None else (measure.centre - spread, measure.centre + spread)
    half = (places[-1] - places[0]) / max(1, len(places) - 1) / 2 or 0.5
    edges = (places[0] - half, places[-1] + half, steps[-1] + 0.5, steps[0] - 0.5)
    with drawing() as figure:
        axes = figure.add_subplot()
        axes.grid(False)
        colors = "viridis" if measure.centre is None else "PuOr"
        image = axes.imshow(values, cmap=colors, aspect="auto", interpolation="none", extent=edges, vmin=low, vmax=high)
        figure.colorbar(image, ax=axes)
        axes.set(xlabel="rollouts trained on", ylabel="denoising step")
    return plot(f"{measure.title}, by denoising step and rollout", figure, f"steps-{name}")
