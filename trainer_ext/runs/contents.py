"""What the files of a checkpoint may hold: tensors and plain values, never code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from ..errors import CheckpointError


def check_contents(checkpoint: Path) -> None:
    """
    Check that each file of a checkpoint holds what its name says, before any of them changes the run.

    Raises:
        [`CheckpointError`]: one of them does not.
    """
    for file in sorted(path for path in checkpoint.rglob("*") if path.suffix in CONTENT_CHECKS):
        try:
            CONTENT_CHECKS[file.suffix](file)
        except Exception as error:  # each library has errors of its own
            raise CheckpointError(
                f"{checkpoint} cannot be resumed from: its {file.name} cannot be read ({type(error).__name__}: "
                f"{shorten(str(error), 160)}). Resume from another checkpoint."
            ) from error


def load_plain(file: Path) -> Any:
    """Read a file of torch's: tensors, arrays and plain values, on the CPU."""
    with torch.serialization.safe_globals(NUMPY_ARRAYS):
        return torch.load(file, weights_only=True, mmap=True, map_location="cpu")


def _open_safetensors(file: Path) -> None:
    with safe_open(file, "pt") as tensors:
        tensors.keys()


def _load_json(file: Path) -> None:
    json.loads(file.read_text(encoding="utf-8"))


# What numpy's arrays are made of, which the states of random generators hold.
NUMPY_ARRAYS: list[Any] = [np.zeros(0).__reduce__()[0], np.ndarray, np.dtype, type(np.dtype(np.uint32))]
CONTENT_CHECKS: Mapping[str, Callable[[Path], None]] = {
    ".pt": load_plain,
    ".pth": load_plain,
    ".bin": load_plain,
    ".safetensors": _open_safetensors,
    ".json": _load_json,
}
