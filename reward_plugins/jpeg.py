"""Size of an image as a JPEG: the compression rewards of the DDPO paper (arXiv:2305.13301)."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from ddpo_plugins import RewardSpec

if TYPE_CHECKING:
    from PIL import Image


def jpeg_size(image: Image.Image) -> float:
    """Return the size of an RGB image as a JPEG of quality 95, in kB, 1 kB = 1000 bytes."""
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=95)
    return buffer.tell() / 1000


def jpeg_incompressibility(images: list[Image.Image], **columns: Any) -> list[float]:
    """Return the size of each image as a JPEG, in kB: a model that maximises it paints detail and noise."""
    return [jpeg_size(image) for image in images]


def jpeg_compressibility(images: list[Image.Image], **columns: Any) -> list[float]:
    """Return minus the size of each image as a JPEG, in kB: a model that maximises it paints plain surfaces."""
    return [-jpeg_size(image) for image in images]


REWARDS = (
    RewardSpec(
        "jpeg_compressibility",
        lambda device: jpeg_compressibility,
        "Minus the size as a JPEG of quality 95, in kB (1 kB = 1000 bytes).",
    ),
    RewardSpec(
        "jpeg_incompressibility",
        lambda device: jpeg_incompressibility,
        "Size as a JPEG of quality 95, in kB (1 kB = 1000 bytes).",
    ),
)
