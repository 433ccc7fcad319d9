"""Lines of text on pictures, in any script of which a font is installed."""

from __future__ import annotations

import functools
import itertools
import unicodedata
from typing import NamedTuple

from PIL import ImageDraw, ImageFont

# Matplotlib ships the first one. The others are used where they are installed.
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
)


class Face(NamedTuple):
    """
    A font that is installed.

    Parameters:
        file (`str`):
            Its file, which may have several.
        index (`int`):
            Its number there.
        characters (`frozenset[int]`):
            The code points that it has.
    """

    file: str
    number: int
    characters: frozenset[int]


def can_be_shown(char: str) -> bool:
    """Whether a character is printed, and a font has it."""
    return char.isprintable() and any(ord(char) in face.characters for face in _faces())


def write_line(draw: ImageDraw.ImageDraw, middle: float, baseline: float, text: str, size: float) -> None:
    """
    Write a line of text in black. Each character is written with the first font that has it.

    Args:
        draw (`ImageDraw`):
            Draws on the picture.
        middle (`float`):
            The line's middle, in pixels from the left.
        baseline (`float`):
            Where its letters stand, in pixels from the top.
        text (`str`):
            The line.
        size (`float`):
            The letters' size, in pixels.
    """
    shaped = any(map(_is_shaped, text))
    parts = [(_font(face, size, shaped), "".join(chars)) for face, chars in itertools.groupby(text, _face_of)]
    widths = [font.getlength(part) for font, part in parts]
    left = middle - sum(widths) / 2
    for (font, part), width in zip(parts, widths, strict=True):
        draw.text((left, baseline), part, "black", font, anchor="ls")
        left += width


def _is_shaped(char: str) -> bool:
    """Whether the letters of a character's script are joined, combined, or written from right to left."""
    return unicodedata.category(char).startswith("M") or unicodedata.bidirectional(char) in {"R", "AL"}


def _face_of(char: str) -> Face:
    faces = _faces()
    return next((face for face in faces if ord(char) in face.characters), faces[0])


@functools.cache
def _font(face: Face, size: float, shaped: bool) -> ImageFont.FreeTypeFont:
    # The other layout puts letters between pixels, where small ones of Latin scripts stand unevenly.
    layout = ImageFont.Layout.RAQM if shaped else ImageFont.Layout.BASIC
    return ImageFont.truetype(face.file, size, face.number, layout_engine=layout)


@functools.cache
def _faces() -> list[Face]:
    """Return the fonts that are installed, in the order of [`FONTS`]."""
    from matplotlib import font_manager  # here, because it takes a part of a second, in which a run could begin

    installed = {font.name for font in font_manager.fontManager.ttflist}
    faces = []
    for name in FONTS:
        if name in installed:
            file = font_manager.findfont(name)  # of the regular weight
            font = font_manager.get_font(file)
            names = [ImageFont.truetype(file, index=index).getname()[0] for index in range(font.num_faces)]
            index = names.index(name) if name in names else 0
            faces.append(Face(str(file), index, frozenset(font.get_charmap())))
    return faces
