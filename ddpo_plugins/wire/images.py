"""Images as texts, without loss."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image

ImageFormat = Literal["png", "webp"]
IMAGE_FORMATS: tuple[ImageFormat, ...] = ("png", "webp")


def encode_image(image: Image.Image, form: ImageFormat) -> str:
    """Return an RGB image, without loss, as base64."""
    buffer = BytesIO()
    if form == "png":
        image.save(buffer, format="PNG", compress_level=1)
    else:
        image.save(buffer, format="WEBP", lossless=True, quality=50, method=0)  # a third of a PNG's time, and no larger
    return base64.b64encode(buffer.getvalue()).decode()


def decode_images(texts: Sequence[str]) -> list[Image.Image]:
    """
    Return images as RGB.

    Raises:
        `ValueError`: one is no PNG or WebP in base64; the message says which, and begins with a noun.
    """
    return [_decoded(number, text) for number, text in enumerate(texts)]


def _decoded(number: int, text: str) -> Image.Image:
    from PIL import Image

    try:
        data = BytesIO(base64.b64decode(text, validate=True))
        with Image.open(data, formats=[form.upper() for form in IMAGE_FORMATS]) as image:
            return image.convert("RGB")
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image {number} is no PNG or WebP in base64: {error}") from error
