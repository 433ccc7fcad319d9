"""The colours and markers of all plots: series differ in both, so that they can be told apart without seeing colours."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import NamedTuple

#: Colours that people with any kind of colour vision tell apart (Okabe and Ito, 2008), without black and yellow, which are
#: hard to see on one of the two backgrounds, dark and light.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class Style(NamedTuple):
    """
    The look of a series.

    Parameters:
        color (`str`):
            One of [`OKABE_ITO`].
        marker (`str`):
            One of [`MARKERS`].
    """

    color: str
    marker: str


def styles() -> Iterator[Style]:
    """Yield looks that differ: six times seven before one comes again."""
    yield from map(Style, cycle(OKABE_ITO), cycle(MARKERS))
