"""Images that are no pictures, and groups of images that are alike."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from labelled_images import background
from PIL import Image, ImageChops, ImageEnhance

GROUP = 8  # images of a prompt


def one_colour(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(generator.random(3), picture.shape)


def nearly_one_colour(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return generator.random(3) + 0.03 * (picture - picture.mean()) + generator.normal(0, 0.004, picture.shape)


def white_noise(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return generator.random(3) + generator.uniform(0.08, 0.4) * generator.normal(size=picture.shape)


def noise_over_a_picture(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return 0.3 * picture + generator.uniform(0.2, 0.4) * generator.normal(size=picture.shape) + 0.3


def checkerboard(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    squares = np.indices(picture.shape[:2]) // generator.integers(1, 7)
    return np.where((squares.sum(axis=0) % 2)[..., None], *generator.random((2, 3)))


def grid_over_a_picture(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    lines = (np.indices(picture.shape[:2]) % generator.integers(2, 6) == 0).any(axis=0)
    return picture + generator.choice([-1, 1]) * generator.uniform(0.06, 0.15) * lines[..., None]


def pure_colours(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return 8 * (picture - picture.mean(axis=2, keepdims=True)) + 0.5


KINDS: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...] = (
    one_colour, nearly_one_colour, white_noise, noise_over_a_picture, checkerboard, grid_over_a_picture, pure_colours
)  # fmt: skip


def broken_images(seed: int, number: int, size: int) -> dict[str, list[Image.Image]]:
    """Make `number` images of each kind, and as many pictures (`"picture"`)."""
    draw, generator = random.Random(seed), np.random.default_rng(seed)
    images: dict[str, list[Image.Image]] = {"picture": [_at(background(draw), size) for _ in range(number)]}
    for kind in KINDS:
        pictures = (np.asarray(_at(background(draw), size), float) / 255 for _ in range(number))
        broken = (kind(picture, generator).clip(0, 1) * 255 for picture in pictures)
        images[kind.__name__.replace("_", " ")] = [
            Image.fromarray(pixels.round().astype(np.uint8)) for pixels in broken
        ]
    return images


def groups(seed: int, number: int, size: int) -> dict[str, list[list[Image.Image]]]:
    """Make `number` groups of `GROUP` images of each kind: alike, nearly alike, and independent."""
    draw = random.Random(seed)
    made: dict[str, list[list[Image.Image]]] = {"equal": [], "nearly equal": [], "independent": []}
    for _ in range(number):
        picture = _at(background(draw), size)
        made["equal"].append([picture] * GROUP)
        made["nearly equal"].append([_varied(picture, draw) for _ in range(GROUP)])
        made["independent"].append([_at(background(draw), size) for _ in range(GROUP)])
    return made


def _at(image: Image.Image, size: int) -> Image.Image:
    return image.resize((size, size), Image.Resampling.LANCZOS)


def _varied(picture: Image.Image, draw: random.Random) -> Image.Image:
    """Move a picture by up to a twentieth, and change its brightness by up to a tenth."""
    reach = picture.width // 20
    moved = ImageChops.offset(picture, draw.randint(-reach, reach), draw.randint(-reach, reach))
    return ImageEnhance.Brightness(moved).enhance(draw.uniform(0.9, 1.1))
