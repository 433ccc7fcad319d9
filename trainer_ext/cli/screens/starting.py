"""Says at once that a command has begun: the libraries that it needs take seconds to import. And shortens these seconds."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator

#: Commands that import torch, and of these those that also say so in a file and call [`started`].
SLOW = ("train", "reproduce", "sample", "doctor", "audit", "export")
LONG = ("train", "reproduce", "sample")
HELP = {"-h", "--help", "--help_all"}

_ends: list[Callable[[], None]] = []  # what to call when the command has started


@contextlib.contextmanager
def starting(command: str, arguments: list[str]) -> Iterator[None]:
    """Context manager for a command, which says that it has begun until [`started`] is called, or it ends."""
    if command in SLOW and not HELP & set(arguments):
        if os.environ.get("RANK", "0") == "0":
            _announce(command)
        if command in LONG:
            _collect_later()
    try:
        yield
    finally:
        started()


def _announce(command: str) -> None:
    from ...loop.console import on_terminal

    text = f"ddpo {command}: loading libraries"
    if on_terminal():
        _show(text)
    elif command in LONG:
        print(text, flush=True)


def _collect_later() -> None:
    """Collect no garbage for now: what imports make stays, and looking through it again and again is a fifth of their time."""
    if gc.isenabled():
        gc.disable()
        _ends.append(gc.enable)


def stage(text: str) -> None:
    """Begin the next part of a command that has not started; on a terminal, say so on a line that goes away."""
    from ...loop.console import on_terminal

    started()
    _collect_later()
    if on_terminal():
        _show(text)


def _show(text: str) -> None:
    from rich.status import Status

    from ...loop.console import console

    status = Status(text, console=console(), refresh_per_second=5)
    status.start()
    _ends.append(status.stop)
    console().show_cursor(True)  # a command that is killed would take it along


def started() -> None:
    """Remove that line, and collect garbage: from here on, the command shows itself what it does."""
    while _ends:
        _ends.pop()()
