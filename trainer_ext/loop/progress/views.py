"""Where a run is shown: on a terminal with a bar, or as lines of plain text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from transformers.utils.import_utils import is_in_notebook

from ..console import console, on_terminal
from ..describing import describing
from .bars import TerminalBar
from .rows import TABLE_WIDTH, Row, as_line, as_table_row, table_header


class View(Protocol):
    """Shows a run."""

    def begin(self, done: int, updates: int) -> None:
        """Show that a training begins, or goes on."""

    def update(self, done: int, note: str) -> None:
        """Show how many updates are done, and what is known of the rest."""

    def row(self, row: Row) -> None:
        """Show what came of a rollout."""

    def end(self) -> None:
        """Leave the rows, and nothing that moves."""


class PlainView:
    """One line of text for each rollout, on standard error: for files, and for those who want no bars."""

    def begin(self, done: int, updates: int) -> None:
        """Do nothing."""

    def update(self, done: int, note: str) -> None:
        """Do nothing."""

    def row(self, row: Row) -> None:
        """Print a line."""
        print(as_line(row), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Do nothing."""


class TerminalView:
    """A bar over the updates of the run. Above it each rollout leaves a line, or in a wide terminal the row of a table."""

    def __init__(self) -> None:
        self._bar: TerminalBar | None = None
        self._has_header = False

    def begin(self, done: int, updates: int) -> None:
        """Draw the bar."""
        self._bar = TerminalBar(updates, "training", "updates")
        self._bar.show(done, "training", "")

    def update(self, done: int, note: str) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.show(done, "training", note)

    def row(self, row: Row) -> None:
        """Print a row above the bar."""
        for line in self._lines(row):
            console().print(line, soft_wrap=True)

    def _lines(self, row: Row) -> Sequence[str]:
        if console().width < TABLE_WIDTH:
            return [as_line(row, console().width)]
        header = [] if self._has_header else [table_header()]
        self._has_header = True
        return [*header, as_table_row(row)]

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def show_in_notebook(files: Sequence[Path], shown: bool) -> None:
    """Show pictures that are there in a notebook, and elsewhere nothing."""
    if shown and is_in_notebook():
        from .notebook import display_pictures

        with describing("The pictures below the cell"):
            display_pictures(file for file in files if file.is_file())


def choose_view(bars: bool) -> View:
    """Return the view for the place in which the run is watched; without `bars` it is plain everywhere."""
    if not bars:
        return PlainView()
    if is_in_notebook():
        from .notebook import NotebookView  # needs IPython

        return NotebookView()
    return TerminalView() if on_terminal() else PlainView()
