"""Cheap figures of images whose values are known."""

import numpy as np
import pytest
from PIL import Image

from trainer_ext.monitoring.pixels import MAX_SIDE, mean_distances, pixel_figures, thumbnail


def image(pixels):
    return Image.fromarray(np.asarray(pixels, np.uint8))


def flat(colour, side=16):
    return Image.new("RGB", (side, side), colour)


def noise(seed, low=0, high=256, side=16):
    return image(np.random.default_rng(seed).integers(low, high, (side, side, 3)))


def halves(left, right, side=16):
    both = flat(left, side)
    both.paste(right, (side // 2, 0, side, side))
    return both


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (flat("black"), {"darkness": 1, "edges": 0, "entropy": 0, "saturation": 0, "brightness": 0}),
        (flat("white"), {"darkness": 0, "edges": 0, "entropy": 0, "saturation": 0, "brightness": 1}),
        (flat("red"), {"darkness": 0, "edges": 0, "entropy": 0, "saturation": 1, "brightness": 76 / 255}),
        # one column of 15 has an edge to its right
        (
            halves("black", "white"),
            {"darkness": 0.5, "edges": 1 / 15, "entropy": 1, "saturation": 0, "brightness": 0.5},
        ),
    ],
)
def test_figures_by_hand(picture, expected):
    assert pixel_figures(picture) == pytest.approx(expected)


def test_noise_has_all_colours_and_edges_everywhere():
    figures = pixel_figures(noise(0, side=256))
    assert figures["entropy"] == pytest.approx(6, abs=0.01)
    assert figures["edges"] > 0.9


def test_large_images_are_measured_like_small_ones():
    small = halves("navy", "orange", MAX_SIDE)
    large = small.resize((4 * MAX_SIDE, 4 * MAX_SIDE), Image.Resampling.NEAREST)
    assert pixel_figures(large) == pixel_figures(small)
    assert pixel_figures(flat("white", 1))["edges"] == 0


def distances(*pictures):
    return mean_distances(np.stack([thumbnail(picture) for picture in pictures])).tolist()


def test_distances_of_images():
    left, right = halves("black", "white"), halves("white", "black")
    assert distances(left, left) == pytest.approx([0, 0])
    assert distances(left, right) == pytest.approx([2, 2], abs=0.05)
    assert distances(left, left, right) == pytest.approx([1, 1, 2], abs=0.05)


@pytest.mark.parametrize("others", [("white", "white"), ("black", "white")])
def test_images_without_contrast_are_alike(others):
    """What is left of a collapse is noise; its direction is random, but it does not make pictures diverse."""
    assert distances(*map(flat, others)) == pytest.approx([0, 0])
    assert max(distances(noise(0, 120, 130), noise(1, 120, 130))) < 0.02
    assert min(distances(noise(0), noise(1))) > 0.5
