"""The colours and markers of all plots: series differ in both, so that they can be told apart without seeing colours."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, product
from typing import NamedTuple

#: Colours that people with any kind of colour vision tell apart (Okabe and Ito, 2008), without black and yellow, which are
#: hard to see on one of the two backgrounds, dark and light.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

LINES = ("-", "--")  #: the second where a colour comes again


class Style(NamedTuple):
    """
    The look of a series.

    Parameters:
        color (`str`):
            One of [`OKABE_ITO`].
        marker (`str`):
            One of [`MARKERS`].
        line (`str`):
            One of [`LINES`].
    """

    color: str
    marker: str
    line: str


def styles() -> Iterator[Style]:
    """Yield looks that differ: six times seven before one comes again."""
    lines, colors = zip(*product(LINES, OKABE_ITO), strict=True)
    yield from map(Style, cycle(colors), cycle(MARKERS), cycle(lines))
