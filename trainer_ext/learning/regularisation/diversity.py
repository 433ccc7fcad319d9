"""Advantages that count less for an image that resembles others of its prompt (GARDO, arXiv:2512.24138)."""

from __future__ import annotations

import numpy as np

from ...types import FloatArray


def diversity_shaped(advantages: FloatArray, similarities: FloatArray) -> FloatArray:
    """
    Return A * d where A > 0, and A elsewhere: a good image counts by its distance d = 1 - similarity from the nearest other image
    of its prompt, so that the same picture again and again earns nothing. A bad image is pushed away however rare it is.

    Args:
        advantages (`np.ndarray` of shape `(B,)`):
            A of each image.
        similarities (`np.ndarray` of shape `(B,)`):
            Similarity of each image to the most similar other one of its prompt, in [0, 1]; NaN where there is none.
    """
    distances = 1 - np.nan_to_num(similarities, nan=0.0)
    return np.where(advantages > 0, advantages * distances, advantages)
