"""Keeps other libraries' chatter off the command line."""

from __future__ import annotations

import logging
import sys
import warnings


class StandardError(logging.Handler):
    """Writes to what is standard error at that moment: while a bar is shown, that puts lines above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def quiet_libraries() -> None:
    """Show only the errors of diffusers and transformers, not their notes and the progress bars for each file they load."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers|transformers|huggingface_hub")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[StandardError()])
