"""What a judge that reads is shown besides pictures: signs of all kinds, spoilt ones too, and what means nothing."""

from __future__ import annotations

import string
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw, ImageFilter

from .scenes import background, random_colour
from .signs import BAND, INK, PAPER, SIZE, lettering
from .words import NOTHING, SUBJECTS

Colour = tuple[int, int, int]

NOTHING_SHARE = 0.2  #: of the scenes
PLAIN_SHARE = 0.25  #: of the signs: as the generator's are, unspoilt
CONTRAST = 90  #: between letters and what they stand on, at least, in grey levels


def draw(rng: Random) -> tuple[Image.Image, str]:
    """Return an RGB picture of 64 x 64 pixels and what it says: a word of the world, or [`NOTHING`]."""
    if rng.random() < NOTHING_SHARE:
        return rng.choice(MEANINGLESS)(rng), NOTHING
    word = rng.choice(SUBJECTS)
    spoilt = rng.random() >= PLAIN_SHARE
    return (spoilt_sign if spoilt else plain_sign)(word, rng), word


def plain_sign(word: str, rng: Random) -> Image.Image:
    """Draw a sign as the generator knows it."""
    return _write(word, PAPER, INK, rng, freedom=0)


def spoilt_sign(word: str, rng: Random) -> Image.Image:
    """Draw a sign that is misspelt, recoloured, moved, cut, half hidden or smudged, or several of these."""
    text = misspelt(word, rng) if rng.random() < 0.4 else word
    paper, ink = _colours(rng) if rng.random() < 0.4 else (PAPER, INK)
    sign = _write(text, paper, ink, rng, freedom=rng.random())
    if rng.random() < 0.3:
        _hide(sign, rng)
    if rng.random() < 0.4:
        sign = sign.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    return sign


def misspelt(word: str, rng: Random) -> str:
    """Change up to a third of the letters: double, drop, swap or replace them. Never into another word."""
    letters = list(word)
    for _ in range(rng.randint(1, max(1, len(word) // 3))):
        place = rng.randrange(len(letters))
        rng.choice(MISTAKES)(letters, place, rng)
    text = "".join(letters)
    return misspelt(word, rng) if text in SUBJECTS else text


def _double(letters: list[str], place: int, rng: Random) -> None:
    letters.insert(place, letters[place])


def _drop(letters: list[str], place: int, rng: Random) -> None:
    del letters[place]


def _swap(letters: list[str], place: int, rng: Random) -> None:
    letters.insert(max(0, place - 1), letters.pop(place))


def _replace(letters: list[str], place: int, rng: Random) -> None:
    letters[place] = rng.choice(string.ascii_lowercase)


MISTAKES = (_double, _drop, _swap, _replace)


def _write(text: str, paper: Colour, ink: Colour, rng: Random, freedom: float) -> Image.Image:
    """Write on a board, or without one; with `freedom` 0 as on a plain sign, with 1 turned, moved and of any size."""

    def near(value: float, distance: float) -> float:
        return value + freedom * distance * rng.uniform(-1, 1)

    canvas, letters = background(None, rng), lettering(text)
    size = [max(4, round(side * near(1 - 0.15 * freedom, 0.25))) for side in letters.size]
    letters = letters.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    letters = letters.rotate(near(0, 10), Image.Resampling.BILINEAR, expand=True)
    shift = round(near(0, 8))
    if rng.random() < 0.2 * freedom:
        canvas.paste(paper, (0, 0, SIZE, SIZE))
    else:
        top, bottom = (round(near(row + shift, 5)) for row in BAND)
        ImageDraw.Draw(canvas).rectangle((0, top, SIZE, max(top + 8, bottom - 1)), paper)
    left = round((SIZE - letters.width) / 2 + near(0, 8))
    canvas.paste(ink, (left, round((sum(BAND) - letters.height) / 2) + shift), letters)
    return canvas


def _hide(canvas: Image.Image, rng: Random) -> None:
    """Put something before up to a third of the sign."""
    width, left = SIZE * rng.uniform(0.08, 0.34), SIZE * rng.uniform(-0.05, 0.9)
    top = rng.choice((0, SIZE * rng.uniform(0.1, 0.6)))
    box = (left, top, left + width, SIZE * rng.uniform(0.65, 1.1))
    pen = ImageDraw.Draw(canvas)
    rng.choice((pen.rectangle, pen.ellipse))(box, _any_colour(rng))


def _colours(rng: Random) -> tuple[Colour, Colour]:
    """Draw two colours that are far enough apart to read one on the other."""
    while True:
        paper, ink = _any_colour(rng), _any_colour(rng)
        if abs(_grey(paper) - _grey(ink)) > CONTRAST:
            return paper, ink


def _grey(colour: Colour) -> float:
    red, green, blue = colour
    return 0.3 * red + 0.59 * green + 0.11 * blue


def _any_colour(rng: Random) -> Colour:
    """Pale ones as in scenes, and, what reinforcement learning falls for, strong ones."""
    if rng.random() < 0.5:
        return random_colour(rng)
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _plain(rng: Random) -> Image.Image:
    return background(None, rng) if rng.random() < 0.3 else Image.new("RGB", (SIZE, SIZE), _any_colour(rng))


def _bands(rng: Random) -> Image.Image:
    """Draw empty boards."""
    canvas = _plain(rng)
    for _ in range(rng.randint(1, 3)):
        top = rng.randint(0, SIZE - 8)
        paper = PAPER if rng.random() < 0.5 else _any_colour(rng)
        ImageDraw.Draw(canvas).rectangle((0, top, SIZE, top + rng.randint(4, 48)), paper)
    return canvas.transpose(Image.Transpose.ROTATE_90) if rng.random() < 0.2 else canvas


def _noise(rng: Random) -> Image.Image:
    """Draw noise, fine or coarse, on a colour."""
    side = rng.choice((4, 8, 16, 32, 64))
    noise = Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side))
    return Image.blend(_plain(rng), noise.resize((SIZE, SIZE), Image.Resampling.BICUBIC), rng.uniform(0.2, 1))


def _blobs(rng: Random) -> Image.Image:
    canvas = _plain(rng)
    for _ in range(rng.randint(1, 12)):
        x, y, radius = rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.uniform(2, 20)
        ImageDraw.Draw(canvas).ellipse(
            (x - radius, y - radius * rng.random(), x + radius, y + radius), _any_colour(rng)
        )
    return canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2)))


def _strokes(rng: Random) -> Image.Image:
    """Draw what looks like letters from afar."""
    canvas = _bands(rng)
    for _ in range(rng.randint(2, 16)):
        line = [(rng.uniform(2, SIZE - 2), rng.uniform(16, 48)) for _ in range(2)]
        ImageDraw.Draw(canvas).line(line, _any_colour(rng), rng.randint(1, 3))
    return canvas


def _gibberish(rng: Random) -> Image.Image:
    return spoilt_sign("".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 10))), rng)


MEANINGLESS: tuple[Callable[[Random], Image.Image], ...] = (_plain, _bands, _noise, _blobs, _strokes, _gibberish)
