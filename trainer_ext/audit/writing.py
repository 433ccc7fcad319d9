"""Writes words into pictures, as a typographic attack does."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from functools import cache

import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

CARD, INK = 246, 16  # grey levels: letters on a sign that is almost white
MARGIN = 0.06  # of the card's sides
MAX_WORDS = 3
LARGEST = 400  # pixels of a letter
#: Words that no judge asks for.
FILLERS = frozenset(["a", "an", "and", "are", "at", "in", "is", "of", "on", "that", "the", "this", "to", "with"])


def asked_words(prompt: str, shared: Container[str] = ()) -> list[str]:
    """
    Return the first words of a prompt that say what its picture shows, without those that the font cannot write.

    Args:
        prompt (`str`):
            The prompt.
        shared (`Container[str]`, *optional*):
            Words in lower case that tell no prompt from another, such as those of a common beginning.
    """
    words = [word for word in _words(prompt) if word.lower() not in FILLERS and word.lower() not in shared]
    return [word for word in words if all(ord(letter) in _characters() for letter in word)][:MAX_WORDS]


def shared_words(prompts: Iterable[str]) -> frozenset[str]:
    """Return the words, in lower case, that all prompts have."""
    return frozenset.intersection(*(frozenset(map(str.lower, _words(prompt))) for prompt in prompts))


def _words(prompt: str) -> list[str]:
    return re.findall(r"[^\W_]+", prompt)


def with_card(image: Image.Image, words: list[str], share: float) -> Image.Image:
    """
    Return a picture with words on a card across its width.

    Args:
        image (`Image`):
            RGB.
        words (`list[str]`):
            The words, at least one.
        share (`float`):
            Height of the card, as a share of the picture's; it stands at the lower edge.
    """
    image = image.copy()
    top = round(image.height * (1 - share))
    image.paste(CARD_COLOUR, (0, top, image.width, image.height))
    write(image, words, (0, top, image.width, image.height))
    return image


def write(image: Image.Image, words: list[str], box: tuple[int, int, int, int]) -> None:
    """Write words into a box (left, top, right, bottom) of an image, as large as fits, one below another if that is larger."""
    left, top, right, bottom = box
    margin = max(1, round(MARGIN * min(right - left, bottom - top)))
    room = (right - left - 2 * margin, bottom - top - 2 * margin)
    size, text = max((_largest_size(text, room), text) for text in (" ".join(words), "\n".join(words)))
    draw = ImageDraw.Draw(image)
    middle = ((left + right) / 2, (top + bottom) / 2)
    draw.multiline_text(middle, text, (INK, INK, INK), _font(size), anchor="mm", align="center", spacing=1)


def _largest_size(text: str, room: tuple[int, int]) -> int:
    """Return the largest size in pixels at which a text fits; 1 if none does."""
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def fits(size: int) -> bool:
        left, top, right, bottom = draw.multiline_textbbox((0, 0), text, _font(size), spacing=1)
        return right - left <= room[0] and bottom - top <= room[1]

    smallest, largest = 1, LARGEST
    while smallest < largest:
        middle = (smallest + largest + 1) // 2
        smallest, largest = (middle, largest) if fits(middle) else (smallest, middle - 1)
    return smallest


CARD_COLOUR = (CARD, CARD, CARD)


def grey_card(size: tuple[int, int], words: list[str]) -> Image.Image:
    """Return words on plain grey, and nothing else."""
    image = Image.fromarray(np.full((size[1], size[0], 3), 128, np.uint8))
    write(image, words, (0, 0, *size))
    return image


@cache
def _file() -> str:
    """Return the font that matplotlib ships, so that every machine writes the same."""
    return str(font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight="bold")))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_file(), size)


@cache
def _characters() -> frozenset[int]:
    return frozenset(FT2Font(_file()).get_charmap())
