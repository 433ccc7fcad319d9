"""Keeps other libraries' chatter off the command line."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Show only the errors of diffusers and transformers, not their notes and the progress bars for each file they load."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers|transformers|huggingface_hub")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
