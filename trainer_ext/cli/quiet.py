"""Keeps other libraries' chatter off the command line."""

from __future__ import annotations

import logging
import sys


class StandardError(logging.Handler):
    """Writes to what is standard error at that moment: while a bar is shown, that puts lines above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def quiet_libraries() -> None:
    """Show only the errors of diffusers and transformers, and our own warnings without their origin."""
    from ..loop import quiet

    quiet.quiet_libraries()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[StandardError()])
