"""Words on signs: large, across the whole width, and always in the same place, as spelling is hard enough to learn."""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

SIZE = 64  #: pixels of a picture
BAND = 12, 52  #: rows of the board
WIDTH, HEIGHT = 62, 32  #: of the letters, at most
TALLER, WIDER = 2.2, 1.25  #: than the font has them, at most
PAPER, INK = (250, 248, 240), (20, 20, 25)
FONT_SIZE = 96  #: letters are drawn large and made smaller, to any proportions


def draw_sign(canvas: Image.Image, word: str) -> None:
    """Write a word across the middle of a picture of 64 x 64 pixels."""
    top, bottom = BAND
    ImageDraw.Draw(canvas).rectangle((0, top, SIZE, bottom - 1), PAPER)
    letters = lettering(word)
    canvas.paste(INK, ((SIZE - letters.width) // 2, (top + bottom - letters.height) // 2), letters)


@lru_cache(maxsize=1024)
def lettering(word: str) -> Image.Image:
    """Return a word as a mask, which fills its place as well as it can be read: long words are narrow and tall."""
    font = ImageFont.load_default(FONT_SIZE)
    assert isinstance(font, ImageFont.FreeTypeFont)
    left, _, right, _ = font.getbbox(word)
    _, top, _, bottom = font.getbbox("bdpg")  # all words on one line
    mask = Image.new("L", (round(right - left), round(bottom - top)))
    ImageDraw.Draw(mask).text((-left, -top), word, 255, font)
    height = min(HEIGHT, round(WIDTH * mask.height / mask.width * TALLER))
    width = min(WIDTH, round(height * mask.width / mask.height * WIDER))
    return mask.resize((width, height), Image.Resampling.LANCZOS)
