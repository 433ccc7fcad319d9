"""Progress bars: rich's on a terminal, transformers' in a notebook, and none where nobody could watch them move."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers.utils.import_utils import is_in_notebook

from ..console import console, on_terminal
from ..describing import described_as, describing

SLOW_SECONDS = 10.0  #: of waiting for rewards, after which the bar shows it
REFRESH_SECONDS = 0.2


class Bar(Protocol):
    """A bar, wherever it is shown."""

    def show(self, done: int, title: str, note: str) -> None:
        """Show how much is done, below which title, and what else there is to say."""

    def close(self) -> None:
        """Remove the bar."""


class NoBar:
    """Shows nothing."""

    def show(self, done: int, title: str, note: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class TerminalBar:
    """
    A bar of rich's, drawn when it changes and by no thread of its own, with a cursor that a killed run does not take along.

    Args:
        total (`int`):
            The number of units.
        title (`str`):
            Shown before the bar.
        unit (`str`):
            What is counted, in the plural.
    """

    opened: list[TerminalBar] = []  # noqa: RUF012 - of the one terminal that there is; the innermost is the last

    def __init__(self, total: int, title: str, unit: str):
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn(unit, markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self._progress = Progress(
            *columns,
            console=console(),
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # what goes into a file stays out of the terminal
            expand=True,
        )
        self._total = total
        self._task = self._progress.add_task(title, total=total, note="")
        self._drawn = time.monotonic()
        self._progress.start()
        console().show_cursor(True)
        self.opened.append(self)
        self._progress.refresh()

    def show(self, done: int, title: str, note: str) -> None:
        """Show how much is done, a few times a second at most."""
        self._progress.update(self._task, completed=done, description=title, note=note)
        if done >= self._total or time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self._progress.refresh()
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Remove the bar, and those that were opened after it."""
        while self in self.opened:
            self.opened.pop()._progress.stop()
        if self.opened:  # rich goes on to show a bar inside of another until that is drawn again
            self.opened[-1]._progress.refresh()


@contextlib.contextmanager
def closing_bars() -> Iterator[None]:
    """Context manager after which no bar of its block is on the terminal, however it ended."""
    before = len(TerminalBar.opened)
    try:
        yield
    finally:
        for bar in TerminalBar.opened[before:][:1]:
            with describing("The progress bar"):
                bar.close()
        if is_in_notebook():
            from .notebook import NotebookView

            NotebookView.current = None


class StepBar:
    """
    A bar over the denoising steps of several batches, gone when they are done.

    Args:
        num_steps (`int`):
            Denoising steps of all batches.
        title (`str`):
            Shown before the bar.
        enabled (`bool`):
            False hides the bar.
    """

    def __init__(self, num_steps: int, title: str, enabled: bool):
        self.title, self._note, self._done = title, "", 0
        self._bar: Bar = NoBar()
        if enabled:
            with describing("The progress bar"):
                self._bar = _new_bar(num_steps, title)

    def __enter__(self) -> StepBar:
        return self

    @described_as("The progress bar")
    def __exit__(self, *error: object) -> None:
        self._bar.close()

    @described_as("The progress bar")
    def on_step(self) -> None:
        """Count a step."""
        self._done += 1
        self._bar.show(self._done, self.title, self._note)

    @described_as("The progress bar")
    def on_reward(self, mean: float) -> None:
        """Show the mean reward of a batch."""
        self._note = f"reward {mean:.4g}"
        self._bar.show(self._done, self.title, self._note)

    @described_as("The progress bar")
    def on_wait(self, names: Sequence[str], seconds: float) -> None:
        """Show which rewards are still running, if they take long."""
        if seconds >= SLOW_SECONDS and names:
            self._bar.show(self._done, self.title, f"waiting for {', '.join(names)} ({seconds:.0f} s)")


def _new_bar(num_steps: int, title: str) -> Bar:
    if is_in_notebook():
        from .notebook import ChildBar  # needs IPython

        return ChildBar(num_steps, title)
    return TerminalBar(num_steps, title, "steps") if on_terminal() else NoBar()
