"""What can be known before anything is loaded: the card, downloads, disk space; and whether the user agrees."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from ...errors import ConfigError
from ...reproduction.planning import GB, Card

WEIGHTS = (".safetensors", ".bin")  #: of a component, the first kind that there is
RESERVE_BYTES = 2 * GB  #: of a disk, for pictures and records


def this_card(use_cpu: bool) -> Card:
    """Return the card, or the machine if there is none."""
    import psutil
    import torch

    if use_cpu or not torch.cuda.is_available():
        return Card(False, int(psutil.virtual_memory().total), True)
    total = torch.cuda.get_device_properties(0).total_memory
    return Card(True, int(total), torch.cuda.is_bf16_supported(including_emulation=False))


def missing_downloads(repositories: Iterable[str]) -> dict[str, int]:
    """
    Return the bytes of each repository on the Hub that is not on this disk.

    Raises:
        [`HubAccessError`]: the user must log in or accept a licence first.
        [`HubError`]: the Hub does not answer.
    """
    from ...hub.client import Hub
    from ..listing.details import is_cached

    hub, found = Hub(), {}
    for name in dict.fromkeys(repositories):
        if not Path(name).expanduser().exists() and not is_cached(name):
            see = partial(hub.api.model_info, name, files_metadata=True)
            info = hub.attempt(f"see the files of {name}", see)
            hub.attempt(f"download from {name}", partial(hub.api.auth_check, name))
            found[name] = download_bytes({file.rfilename: file.size or 0 for file in info.siblings or ()})
    return found


def download_bytes(sizes: Mapping[str, int]) -> int:
    """
    Return the bytes that diffusers and transformers load of a repository.

    Of each folder that is one kind of weights, without variants such as `model.fp16.safetensors`; whole checkpoints at the top
    count only where there is no pipeline.
    """
    is_pipeline = "model_index.json" in sizes
    total = 0
    for folder in {str(Path(name).parent) for name in sizes}:
        files = {name: size for name, size in sizes.items() if str(Path(name).parent) == folder}
        weights = {kind: [name for name in files if name.endswith(kind) and not _is_variant(name)] for kind in WEIGHTS}
        chosen = next((names for names in weights.values() if names), [])
        total += sum(
            size for name, size in files.items() if not name.endswith((*WEIGHTS, ".ckpt", ".msgpack", ".onnx"))
        )
        total += 0 if folder == "." and is_pipeline else sum(files[name] for name in chosen)
    return total


def _is_variant(name: str) -> bool:
    return "." in Path(name).stem


def check_disk(folder: Path, needed_bytes: float, what: str) -> None:
    """
    Check that a disk has the space that is needed, and some more.

    Raises:
        [`ConfigError`]: it has less.
    """
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed_bytes + RESERVE_BYTES:
        raise ConfigError(
            f"{place} has {free / GB:.3g} GB free, and {what} needs {needed_bytes / GB:.3g} GB, with {RESERVE_BYTES / GB:.3g} GB "
            "for pictures and records. Make space, or use another disk (--output_dir, HF_HOME)."
        )


def agree(question: str, yes: bool) -> None:
    """
    Ask before long work.

    Raises:
        [`ConfigError`]: the user does not agree, or nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody can be asked here: start it with --yes.")
    if input(f"{question} Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("Nothing was started. Use a smaller --budget, or --yes to start without being asked.")
