"""Says at once that a command has begun: the libraries that it needs take seconds to import."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status

#: Commands that import torch, and of these those that also say so in a file.
SLOW = ("train", "reproduce", "sample", "doctor", "audit", "export")
LONG = ("train", "reproduce", "sample")
HELP = {"-h", "--help", "--help_all"}

_statuses: list[Status] = []  # that are shown now: one at most


@contextlib.contextmanager
def starting(command: str, arguments: list[str]) -> Iterator[None]:
    """Context manager for a command, which says that it has begun until [`started`] is called, or it ends."""
    if command not in SLOW or HELP & set(arguments) or os.environ.get("RANK", "0") != "0":
        yield
        return
    from ...loop.console import on_terminal

    text = f"ddpo {command}: loading libraries"
    if on_terminal():
        stage(text)
    elif command in LONG:
        print(text, flush=True)
    try:
        yield
    finally:
        started()


def stage(text: str) -> None:
    """Show what the command does before it has started; only on a terminal, on a line that goes away."""
    from ...loop.console import console, on_terminal

    started()
    if on_terminal():
        from rich.status import Status

        _statuses.append(Status(text, console=console(), refresh_per_second=5))
        _statuses[-1].start()
        console().show_cursor(True)  # a command that is killed would take it along


def started() -> None:
    """Remove that line: from here on, the command shows itself what it does."""
    while _statuses:
        _statuses.pop().stop()
