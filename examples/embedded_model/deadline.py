"""When training stops before its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A stage ended before its last step, by Ctrl-C or because its time was up. Its checkpoint is written."""


class Deadline:
    """
    When to stop training: after some minutes, or at the next SIGINT or SIGTERM.

    Args:
        minutes (`float`, *optional*): From now on.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the block, take Ctrl-C for a request to stop when it is safe; a second one interrupts at once."""
        previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @property
    def passed(self) -> bool:
        """Whether to stop."""
        return self._requested or (self._end is not None and time.monotonic() > self._end)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
