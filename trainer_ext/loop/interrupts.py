"""Ctrl-C that takes effect only when no update or file is half done."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

logger = logging.getLogger(__name__)


class StoppedError(KeyboardInterrupt):
    """Ctrl-C, raised when no update or file is half done."""


class StopRequest:
    """
    Remembers a first Ctrl-C; a second one interrupts at once.

    Parameters:
        requested (`bool`):
            Whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextlib.contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Catch SIGINT inside the block. Outside the main thread, where Python allows no handlers, do nothing."""
        self.requested = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        logger.warning(
            "Interrupted: stopping after this step and saving a checkpoint. Press Ctrl-C again to stop at once."
        )
