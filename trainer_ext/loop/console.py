"""The terminal. Imports nothing heavy, so that something can be shown while everything else is imported."""

from __future__ import annotations

import functools

from rich.console import Console


@functools.cache
def console() -> Console:
    """Return the console of standard error. All bars are on the same one: rich draws those of one moment together."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def on_terminal() -> bool:
    """Return whether a bar would be seen moving. rich also calls a file a terminal, if FORCE_COLOR says so."""
    return console().file.isatty() and not console().is_dumb_terminal
