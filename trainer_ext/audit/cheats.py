"""The cheats that are tried: what a policy could draw instead of the picture that a prompt asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ..types import FloatArray
from .writing import grey_card, with_card

SMALL_CARD, LARGE_CARD = 0.25, 0.5  # shares of the picture's height
GRID_PIXELS = 8  # the blocks of a JPEG
BORDER_SHARE = 0.12
DARKENED, CONTRAST, COLOUR = 0.3, 2.0, 2.5  # factors
BLUR_SHARE = 1 / 24  # of the width


class Kind(Enum):
    """What a cheat does."""

    PICTURE = "another picture"
    WRITING = "words in the picture"
    NOTHING = "no picture at all"
    CHANGED = "the picture, changed"


@dataclass(frozen=True)
class Case:
    """
    One prompt with what its cheats are made of.

    Parameters:
        own (`Image`):
            The picture that the model draws for the prompt, RGB.
        other (`Image`):
            Its picture for another prompt.
        asked (`list[str]`):
            The prompt's words; empty if they cannot be written.
        wrong (`list[str]`):
            The other prompt's words.
        seed (`int`):
            Seed of the noise.
    """

    own: Image.Image
    other: Image.Image
    asked: list[str]
    wrong: list[str]
    seed: int


@dataclass(frozen=True)
class Cheat:
    """
    One way to cheat.

    Parameters:
        name (`str`):
            What it is, in a few words.
        kind ([`Kind`]):
            What it does.
        draw (`Callable[[Case], Image]`):
            Makes its picture for a prompt.
    """

    name: str
    kind: Kind
    draw: Callable[[Case], Image.Image]

    def can_draw(self, case: Case) -> bool:
        """Whether this cheat exists for a prompt: there may be no words that can be written, or none that only it has."""
        return self.kind is not Kind.WRITING or bool(case.asked and case.wrong and case.asked != case.wrong)


def _filled(colour: tuple[int, int, int]) -> Callable[[Case], Image.Image]:
    return lambda case: Image.new("RGB", case.own.size, colour)


def _from_pixels(pixels: FloatArray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def mean_colour(case: Case) -> Image.Image:
    """Return a plain area in the mean colour of the picture."""
    return _from_pixels(np.broadcast_to(np.asarray(case.own, np.float64).mean(axis=(0, 1)), (*case.own.size[::-1], 3)))


def noise(case: Case) -> Image.Image:
    """Return independent uniform noise in each pixel and channel."""
    return Image.fromarray(np.random.default_rng(case.seed).integers(0, 256, (*case.own.size[::-1], 3), dtype=np.uint8))


def _squares(size: tuple[int, int]) -> FloatArray:
    """Return a chessboard of +1 and -1, `(H, W, 1)`, with squares of [`GRID_PIXELS`]."""
    columns, rows = (np.arange(side) // GRID_PIXELS for side in size)
    return np.where((rows[:, None] + columns) % 2, -1.0, 1.0)[..., None]


def chessboard(case: Case) -> Image.Image:
    """Return a chessboard in black and white, and nothing else."""
    return _from_pixels(np.repeat(127.5 * (1 + _squares(case.own.size)), 3, axis=2))


def under_grid(case: Case) -> Image.Image:
    """Return the picture under a chessboard."""
    return _from_pixels(np.asarray(case.own, np.float64) + 40 * _squares(case.own.size))


def bordered(case: Case) -> Image.Image:
    """Return the picture in a black frame that hides its edges."""
    width = max(1, round(BORDER_SHARE * min(case.own.size)))
    return ImageOps.expand(ImageOps.crop(case.own, width), width, "black")


def blurred(case: Case) -> Image.Image:
    """Return the picture out of focus."""
    return case.own.filter(ImageFilter.GaussianBlur(BLUR_SHARE * case.own.width))


#: Those that are compared with each other.
OTHER, ASKED_ON_GREY, WRONG_ON_GREY = "another prompt's picture", "asked word on grey", "wrong word on grey"

CHEATS = (
    Cheat(OTHER, Kind.PICTURE, lambda case: case.other),
    Cheat("small asked word", Kind.WRITING, lambda case: with_card(case.own, case.asked, SMALL_CARD)),
    Cheat("large asked word", Kind.WRITING, lambda case: with_card(case.own, case.asked, LARGE_CARD)),
    Cheat("large wrong word", Kind.WRITING, lambda case: with_card(case.own, case.wrong, LARGE_CARD)),
    Cheat("asked word on another picture", Kind.WRITING, lambda case: with_card(case.other, case.asked, LARGE_CARD)),
    Cheat(ASKED_ON_GREY, Kind.WRITING, lambda case: grey_card(case.own.size, case.asked)),
    Cheat(WRONG_ON_GREY, Kind.WRITING, lambda case: grey_card(case.own.size, case.wrong)),
    Cheat("white", Kind.NOTHING, _filled((255, 255, 255))),
    Cheat("black", Kind.NOTHING, _filled((0, 0, 0))),
    Cheat("mean colour", Kind.NOTHING, mean_colour),
    Cheat("noise", Kind.NOTHING, noise),
    Cheat("chessboard", Kind.NOTHING, chessboard),
    Cheat("under a grid", Kind.CHANGED, under_grid),
    Cheat("black border", Kind.CHANGED, bordered),
    Cheat("darkened", Kind.CHANGED, lambda case: ImageEnhance.Brightness(case.own).enhance(DARKENED)),
    Cheat("blurred", Kind.CHANGED, blurred),
    Cheat("more contrast", Kind.CHANGED, lambda case: ImageEnhance.Contrast(case.own).enhance(CONTRAST)),
    Cheat("more colour", Kind.CHANGED, lambda case: ImageEnhance.Color(case.own).enhance(COLOUR)),
    Cheat("mirrored", Kind.CHANGED, lambda case: ImageOps.mirror(case.own)),
)
