"""Plots of matplotlib as SVG inside of an HTML page: text stays text, and takes the page's colour and font."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK = "#000000"  #: drawn in the page's own colour of text, which is light where the page is dark
FADED = "#808080"  #: for grids and what is beside the point, on any background

RULES: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": FADED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FADED,
    "grid.alpha": 0.25,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.markersize": 4,
    "font.size": 10,
}


@dataclass(frozen=True)
class Plot:
    """
    A plot for a page.

    Parameters:
        title (`str`):
            What it shows, in one line.
        svg (`str`):
            An `<svg>` element, safe to stand in HTML as it is.
    """

    title: str
    svg: str


def plot(title: str, figure: Figure, name: str) -> Plot:
    """
    Return a figure as a plot. Make the figure inside of `matplotlib.rc_context(RULES)`.

    Args:
        title (`str`):
            What it shows.
        figure (`Figure`):
            The figure.
        name (`str`):
            Unique in the page: ids begin with it.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(RULES), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # browsers have other fonts
        figure.savefig(buffer, format="svg", transparent=True)
    return Plot(title, _for_a_page(buffer.getvalue(), name))


def _for_a_page(document: str, name: str) -> str:
    """Return the `<svg>` element of a document of matplotlib, without what would clash with the page or another plot."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>|<style .*?</style>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"(font: [^\"';]*?[\d.]+px) [^;\"]*", r"\1 sans-serif", svg)
    return svg.replace(INK, "currentColor")
