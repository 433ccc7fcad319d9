"""Ctrl-C and the signals of schedulers, which take effect only when no update or file is half done."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

logger = logging.getLogger(__name__)

# What asks a training to stop: Ctrl-C; Slurm, Kubernetes, torchrun and spot machines; a terminal that is closed.
SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__)
# A terminal sends Ctrl-C to all its processes, and a launcher sends it on to those that it started: that is one Ctrl-C.
SAME_REQUEST_SECONDS = 1.0


class StopRequestedError(BaseException):
    """The run was asked to stop. Raised when no update or file is half done."""


class StoppedError(StopRequestedError, KeyboardInterrupt):
    """Ctrl-C."""


class TerminatedError(StopRequestedError, SystemExit):
    """SIGTERM or SIGHUP. If nothing catches it, the program ends with the status that shells report for that signal."""

    def __init__(self, signum: int):
        super().__init__(128 + signum)


class StopRequest:
    """
    Remembers the first request to stop; a second Ctrl-C interrupts at once.

    Parameters:
        signum (`int`):
            The signal that asked for it; 0 if none did.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._since = 0.0
        self._when: str | None = None  # while signals are caught

    @contextlib.contextmanager
    def handling_signals(self, when: str = "after this step and saving a checkpoint") -> Iterator[None]:
        """
        Catch SIGINT, SIGTERM and SIGHUP inside the block, except for those that the process was started to ignore (`nohup`).
        Outside the main thread, where Python allows no handlers, do nothing. `when` says when a request takes effect.
        """
        self.signum = 0
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        heard = [
            number for number in SIGNALS if number == signal.SIGINT or before[number] not in (signal.SIG_IGN, None)
        ]
        self._when = when
        for number in heard:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number in heard:
                signal.signal(number, before[number])
            self._when = None

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """
        Context manager for what must not end half done, in a training or outside of one.

        Raises:
            [`StopRequestedError`]: a signal came in the block, outside of a training; the block was finished first.
        """
        if self._when is not None:
            yield
            return
        with self.handling_signals("when this is saved"):
            yield
        if self.signum:
            raise stop_error(self.signum)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            if signum == signal.SIGINT and time.monotonic() - self._since > SAME_REQUEST_SECONDS:
                raise KeyboardInterrupt
            return
        self.signum, self._since = signum, time.monotonic()
        what = "Interrupted" if signum == signal.SIGINT else f"Received {signal.Signals(signum).name}"
        again = " Press Ctrl-C again to stop at once." if signum == signal.SIGINT else ""
        logger.warning("%s: stopping %s.%s", what, self._when, again)


def stop_error(signum: int) -> StopRequestedError:
    """Return the error with which a run ends that this signal asked to stop."""
    return StoppedError() if signum == signal.SIGINT else TerminatedError(signum)
