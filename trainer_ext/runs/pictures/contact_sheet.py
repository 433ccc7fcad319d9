"""Contact sheets: pictures in a grid, each below its caption."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from ..atomic import replacing
from .lettering import write_line

#: Pixels: sides of a picture at most, between two, height of five lines above one, from one line to the next.
PICTURE, GAP, CAPTION, LINE = 182, 10, 70, 12
LETTER, SMALL_LETTER = 10, 8.33  #: pixels: 6 and 5 points
DOTS_PER_INCH = 120


class ContactSheet:
    """
    An empty sheet for pictures below captions. It is drawn without matplotlib, which would take nine times as long.

    Args:
        rows (`int`):
            Pictures in a column.
        columns (`int`):
            Pictures in a row.
    """

    def __init__(self, rows: int, columns: int):
        size = columns * (PICTURE + GAP), rows * (CAPTION + PICTURE) + GAP
        self.image = Image.new("RGB", size, "white")
        self._draw = ImageDraw.Draw(self.image)

    def put(self, row: int, column: int, picture: Image.Image, caption: str) -> None:
        """Place a picture, as large as fits, below the lines of its caption."""
        scale = PICTURE / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        left = column * (PICTURE + GAP) + (PICTURE + GAP - width) // 2
        top = row * (CAPTION + PICTURE) + CAPTION + (PICTURE - height) // 2
        self.image.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, top))
        for above, line in enumerate(reversed(caption.splitlines())):
            write_line(self._draw, left + width / 2, top - GAP - above * LINE, line, LETTER)

    def write_below(self, text: str) -> None:
        """Write a line in small letters below all pictures."""
        write_line(self._draw, self.image.width / 2, self.image.height - GAP / 4, text, SMALL_LETTER)

    def save(self, file: Path) -> None:
        """Write the sheet as PNG."""
        with replacing(file) as place:  # the usual compression, 6, takes twice as long for a few per cent
            self.image.save(place, dpi=(DOTS_PER_INCH, DOTS_PER_INCH), compress_level=4)
