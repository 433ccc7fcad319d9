"""From a description to a picture: large subjects, plain backgrounds, no more variety than 64 pixels can show."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from .art import Art
from .captions import Description
from .signs import SIZE, draw_sign
from .words import COLOURS

Colour = tuple[int, int, int]

# An icon's place: share of the picture that its longer side takes, centre x, centre y.
ALONE, JITTER = 0.84, 0.03
PAIR = (0.5, 0.27, 0.5), (0.5, 0.73, 0.5)
PLACES: dict[str, tuple[tuple[str, float, float, float], ...]] = {
    # Back to front; "" is the animal.
    "riding a bike": (("bike", 0.74, 0.5, 0.71), ("", 0.56, 0.5, 0.31)),
    "driving a car": (("", 0.54, 0.5, 0.31), ("car", 0.84, 0.5, 0.71)),
    "playing chess": (("", 0.62, 0.36, 0.35), ("pawn", 0.34, 0.83, 0.54)),
    "washing the dishes": (("", 0.62, 0.36, 0.35), ("dish", 0.34, 0.81, 0.58)),
    "eating pizza": (("", 0.66, 0.37, 0.38), ("pizza", 0.46, 0.75, 0.74)),
    "wearing a hat": (("", 0.66, 0.5, 0.65), ("hat", 0.42, 0.5, 0.22)),
    "reading a book": (("", 0.66, 0.37, 0.38), ("book", 0.44, 0.76, 0.75)),
    "playing the guitar": (("", 0.66, 0.4, 0.38), ("guitar", 0.58, 0.68, 0.68)),
}


class Painter:
    """
    Draws descriptions.

    Args:
        art (`Art`): Icons to draw with: one set is chosen for every icon of every scene.
    """

    def __init__(self, art: Art) -> None:
        self._art = art

    def paint(self, scene: Description, rng: Random) -> Image.Image:
        """Return an RGB picture of 64 x 64 pixels."""
        canvas = background(scene.background, rng)
        if scene.written:
            draw_sign(canvas, scene.subject)
        elif scene.activity:
            self._act(canvas, scene.subject, scene.activity, rng)
        elif scene.companion:
            for word, place in zip((scene.subject, scene.companion), rng.sample(PAIR, 2), strict=True):
                self._paste(canvas, word, *place, rng, mirrored=rng.random() < 0.5)
        else:
            self._paste(canvas, scene.subject, ALONE, 0.5, 0.5, rng, mirrored=rng.random() < 0.5)
        return canvas

    def _act(self, canvas: Image.Image, animal: str, activity: str, rng: Random) -> None:
        mirrored = rng.random() < 0.5
        if activity in FURNITURE:
            FURNITURE[activity](ImageDraw.Draw(canvas), rng)
        for word, size, x, y in PLACES[activity]:
            self._paste(canvas, word or animal, size, 1 - x if mirrored else x, y, rng, mirrored)

    def _paste(
        self, canvas: Image.Image, word: str, size: float, x: float, y: float, rng: Random, mirrored: bool
    ) -> None:
        icon = rng.choice(list(self._art[word].values()))
        if mirrored:
            icon = icon.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        scale = SIZE * size * rng.uniform(0.93, 1.07) / max(icon.size)
        icon = icon.resize((round(icon.width * scale), round(icon.height * scale)), Image.Resampling.LANCZOS)
        left, top = (
            round(SIZE * (centre + rng.uniform(-JITTER, JITTER)) - side / 2)
            for centre, side in zip((x, y), icon.size, strict=True)
        )
        canvas.paste(icon, (left, top), icon)


def background(name: str | None, rng: Random) -> Image.Image:
    """Draw a named colour, plain; or any colour, plain, shaded from top to bottom, or with a ground of another."""
    if name:
        return Image.new("RGB", (SIZE, SIZE), _near(COLOURS[name], rng))
    canvas = Image.new("RGB", (SIZE, SIZE), random_colour(rng))
    kind = rng.random()
    if kind < 0.25:
        shade = Image.linear_gradient("L").resize((SIZE, SIZE))
        canvas.paste(Image.new("RGB", (SIZE, SIZE), random_colour(rng)), mask=shade)
    elif kind < 0.4:
        ImageDraw.Draw(canvas).rectangle((0, round(SIZE * rng.uniform(0.6, 0.8)), SIZE, SIZE), random_colour(rng))
    return canvas


def _chessboard(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    light, dark = _near((240, 225, 190), rng), _near((95, 60, 40), rng)
    side, top = SIZE // 8, SIZE * 5 // 8
    for row in range(3):
        for column in range(8):
            x, y = column * side, top + row * side
            draw.rectangle((x, y, x + side - 1, y + side - 1), light if (row + column) % 2 else dark)


def _sink(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    draw.rectangle((0, SIZE * 0.66, SIZE, SIZE), _near((175, 190, 205), rng))
    draw.rectangle((SIZE * 0.06, SIZE * 0.74, SIZE * 0.94, SIZE), _near((110, 175, 225), rng))
    for bubble in range(7):
        x, y, radius = SIZE * (0.12 + 0.125 * bubble), SIZE * rng.uniform(0.72, 0.78), SIZE * rng.uniform(0.03, 0.05)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), (245, 250, 255))


FURNITURE: dict[str, Callable[[ImageDraw.ImageDraw, Random], None]] = {
    "playing chess": _chessboard,
    "washing the dishes": _sink,
}


def _near(colour: Colour, rng: Random, distance: int = 8) -> Colour:
    red, green, blue = (min(255, max(0, channel + rng.randint(-distance, distance))) for channel in colour)
    return red, green, blue


def random_colour(rng: Random) -> Colour:
    """Draw a pale colour."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), 0.6 * rng.random(), rng.uniform(0.65, 1.0))
    return round(255 * red), round(255 * green), round(255 * blue)
