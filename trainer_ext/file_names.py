"""Names of the files that stock libraries look for, and any text as the name of a file."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

LORA_FILE = "pytorch_lora_weights.safetensors"  #: for `load_lora_weights` of diffusers

KOHYA_FILE = "pytorch_lora_weights_kohya.safetensors"  #: for ComfyUI, A1111 and others

PEFT_FILE = "adapter_model.safetensors"  #: PEFT's own, for pipelines of diffusers that have no `load_lora_weights`

PEFT_CONFIG = "adapter_config.json"  #: beside it

REPORT_FILE, VOTE_FILE = "report.html", "vote.html"  #: pages that are made of a run's folder

PIPELINE_FILE = "model_index.json"  #: of a whole pipeline of diffusers

STAGING = ".hub"  #: folder in a run's: what a push makes of the other files, and can make again


def as_file_name(text: str) -> str:
    """Return a text as the name of a file, on any system: other characters than ASCII letters, digits and `-_` as `%2F`."""
    return quote(text, safe="").replace(".", "%2E").replace("~", "%7E")


def from_file_name(name: str) -> str:
    """Undo [`as_file_name`]."""
    return unquote(name)


def why_no_place(name: str) -> str | None:
    """
    Return why a name is neither a path that exists nor possibly an id on the Hub; `None` if it is one of the two. Libraries
    would ask the Hub for it, again and again.
    """
    path = Path(name).expanduser()
    if path.exists():
        return None
    missing = f"there is no folder {str(path.absolute())!r}"
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        return missing
    if "/" not in name:
        return f"{missing}, and ids on the Hub have the form owner/name"
    return missing if path.parent.is_dir() else None
