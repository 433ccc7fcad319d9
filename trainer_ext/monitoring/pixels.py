"""Cheap figures of single images, which show how pictures drift while a reward is gamed. No model is called."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..types import FloatArray

MAX_SIDE = 256  #: pixels; larger images are averaged down before they are measured
DARK = 51  #: luma, of 255, below which a pixel is dark
EDGE = 25  #: difference of luma, of 255, between neighbours across which there is an edge
COLOUR_BITS = 2  #: of each channel, by which colours are told apart

THUMBNAIL = 8  #: pixels of a side
CONTRAST = 0.05  #: standard deviation of a thumbnail, of 1, at which its content begins to count


def pixel_figures(image: Image.Image) -> dict[str, float]:
    """
    Measure an RGB image.

    Returns:
        `dict[str, float]`: `darkness`, the share of pixels darker than a fifth of white; `edges`, the share of pixels that differ
        from the one below or to the right by a tenth of white; `entropy` of its colours, in bits, from 0 to 6; `saturation`
        and `brightness`, means in [0, 1].
    """
    image = _reduced(image)
    luma = np.asarray(image.convert("L"), np.int16)
    saturation = np.asarray(image.convert("HSV").getchannel("S"))
    return {
        "darkness": float((luma < DARK).mean()),
        "edges": _edges(luma),
        "entropy": _entropy(np.asarray(image)),
        "saturation": float(saturation.mean() / 255),
        "brightness": float(luma.mean() / 255),
    }


def _reduced(image: Image.Image) -> Image.Image:
    factor = max(image.size) // MAX_SIDE
    return image.reduce(factor) if factor > 1 else image


def _edges(luma: np.ndarray) -> float:
    """Share of pixels with an edge to the right or below, among those that have both neighbours."""
    right = np.abs(luma[:-1, 1:] - luma[:-1, :-1]) >= EDGE
    below = np.abs(luma[1:, :-1] - luma[:-1, :-1]) >= EDGE
    return float((right | below).mean()) if right.size else 0.0


def _entropy(pixels: np.ndarray) -> float:
    channels = pixels.astype(np.int64) >> (8 - COLOUR_BITS)
    colours = (channels[..., 0] << 2 * COLOUR_BITS) | (channels[..., 1] << COLOUR_BITS) | channels[..., 2]
    shares = np.bincount(colours.ravel()) / colours.size
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # of one colour 0, not -0


def thumbnail(image: Image.Image) -> FloatArray:
    """
    Return an RGB image as a vector `(193,)`, whose direction says what it shows: 8 x 8 pixels, without their mean.

    A constant is appended, so that images without contrast, in which only noise is left, have the same direction.
    """
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    values = np.asarray(small, np.float64).ravel() / 255
    return np.append(values - values.mean(), CONTRAST * values.size**0.5)


def mean_distances(thumbnails: FloatArray) -> FloatArray:
    """
    Return each image's mean cosine distance to the others, `(n,)`, in [0, 2]: how diverse the images of one prompt are.

    Args:
        thumbnails (`np.ndarray` of shape `(n, 193)`):
            [`thumbnail`] of n images, at least two.
    """
    directions = thumbnails / np.linalg.norm(thumbnails, axis=1, keepdims=True)
    distances = 1 - directions @ directions.T
    np.fill_diagonal(distances, 0.0)
    return np.maximum(distances, 0.0).sum(axis=1) / (len(thumbnails) - 1)
