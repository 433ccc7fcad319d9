"""Helpers of the rewards that look at images with a model of the `transformers` library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

T = TypeVar("T")


def batches(values: list[T], size: int) -> Iterator[list[T]]:
    """Split a list into parts of `size`, the last of which may be shorter."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


@contextmanager
def naming(model: str, revision: str) -> Iterator[None]:
    """Name the model that does not load: without a network, the library's own errors do not."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{model!r} (revision {revision!r}) does not load: {error}") from error


def load_image_processor(model: str, revision: str) -> BaseImageProcessor:
    """
    Load a model's image processor, in the variant that resizes with Pillow.

    The other variant needs torchvision and rounds differently: a reward would depend on which other packages are installed.

    Args:
        model (`str`):
            Hub id or folder.
        revision (`str`):
            Commit, tag or branch on the Hub.

    Raises:
        `OSError`: there is no such model, or no way to reach it.
    """
    import transformers
    from transformers import AutoImageProcessor

    newer = int(transformers.__version__.split(".")[0]) >= 5
    variant = {"backend": "pil"} if newer else {"use_fast": False}
    with naming(model, revision):
        return AutoImageProcessor.from_pretrained(model, revision=revision, **variant)
