"""Keeps other libraries' chatter out of what a person sees: notes, and a progress bar for each file that they load."""

from __future__ import annotations

import warnings


def quiet_libraries() -> None:
    """Show only the errors of diffusers and transformers."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module="accelerate|diffusers|transformers|huggingface_hub"
    )


def quiet_notebook() -> None:
    """Do the same in a notebook, where these libraries would fill the output of the cell that imports them."""
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, without ipywidgets
    quiet_libraries()
