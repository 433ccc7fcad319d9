"""A UNet's adapter by Kohya's names, which goes into its repository beside it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import ConfigError
from .cards.weights import Weights

logger = logging.getLogger(__name__)

SOURCE = "source_sha256"  #: entry of the file's metadata: of which adapter it is


def write_kohya_file(weights: Weights) -> None:
    """
    Write the adapter for ComfyUI, A1111 and others to its place, unless it is there: only then, torch is needed.

    What these programs could not load is left out, with a warning.
    """
    place = weights.kohya_file
    if place is None or _source_of(place) == digest_of(weights.file):
        return
    from .export import Adapter, write_kohya  # needs torch

    try:
        write_kohya(Adapter.read(weights.file), place)
    except ConfigError as error:
        place.unlink(missing_ok=True)  # of earlier weights
        logger.warning("Nothing is pushed for ComfyUI and A1111: %s", error)


def remove_kohya_file(weights: Weights) -> None:
    """Remove the copy of a checkpoint's adapter, which is only on its way. The one at the end of a run stays beside it."""
    if weights.updates is not None and weights.kohya_file is not None:
        weights.kohya_file.unlink(missing_ok=True)


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _source_of(file: Path) -> str | None:
    """Return the digest of the adapter that a file was made of; `None` if it does not say, or is not there."""
    try:
        with safe_open(file, "np") as opened:
            metadata: dict[str, str] = opened.metadata() or {}
    except (OSError, SafetensorError):
        return None
    return metadata.get(SOURCE)
