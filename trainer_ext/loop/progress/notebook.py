"""A run in a notebook: one display with a bar, a table of rollouts, and a second bar for what is being drawn."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers.utils.notebook import NotebookProgressBar, NotebookTrainingTracker, format_time

from .rows import COLUMNS, Row


class _Tracker(NotebookTrainingTracker):
    """transformers' display, with the time that is left of the whole run instead of its own guess."""

    def update_bar(self, value: int, comment: str | None = None) -> None:
        """Draw the bar."""
        elapsed = format_time(self.elapsed_time or 0)
        parts = [f"{value}/{self.total} updates", elapsed, self.comment]
        self.label: Any = ", ".join(filter(None, parts))
        self.display()


class NotebookView:
    """Shows a run in the output of a cell."""

    current: _Tracker | None = None  #: of the training that goes on

    def begin(self, done: int, updates: int) -> None:
        """Show the bar, and an empty table."""
        NotebookView.current = _Tracker(updates, [title for title, _, _ in COLUMNS])
        NotebookView.current.update(done)

    def update(self, done: int, note: str) -> None:
        """Move the bar."""
        if self.current is not None:
            self.current.update(done, force_update=True, comment=note)

    def row(self, row: Row) -> None:
        """Add a row to the table."""
        if self.current is not None:
            self.current.write_line({title: text(row) for title, _, text in COLUMNS})

    def end(self) -> None:
        """Leave the table as it is."""
        NotebookView.current = None


class ChildBar:
    """
    A second bar, below that of the training, or alone outside of one.

    Args:
        total (`int`):
            The number of steps.
        title (`str`):
            Shown before the bar.
    """

    def __init__(self, total: int, title: str):
        tracker = NotebookView.current
        self._tracker = tracker
        self._bar: Any = (
            NotebookProgressBar(total, title, leave=False) if tracker is None else tracker.add_child(total, title)
        )

    def show(self, done: int, title: str, note: str) -> None:
        """Move the bar."""
        self._bar.prefix = title
        self._bar.update(done, comment=note)

    def close(self) -> None:
        """Remove the bar."""
        if self._tracker is None:
            self._bar.close()
        else:
            self._tracker.remove_child()


def display_pictures(files: Iterable[Path]) -> None:
    """Show pictures in the output of the cell."""
    shown = import_module("IPython.display")  # there in every notebook
    for file in files:
        shown.display(shown.Image(filename=str(file)))
