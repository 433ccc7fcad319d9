"""Images whose label is known, because they are drawn here: backgrounds, texts on them, and images that are no pictures."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CANVAS = 512  # what is drawn on; smaller images are made from it, as by a camera

# Two worlds without a word or a font in common: settings were chosen on one and are measured on the other.
PROMPTS = {
    "tune": ["six turtles", "two dogs", "a cat", "a lion riding a bike", "four zebras", "a horse", "seven monkeys",
             "a butterfly", "a rabbit playing chess", "eight spiders", "a wolf", "a duck washing the dishes"],
    "report": ["five elephants", "three owls", "an apple", "a bear driving a car", "nine penguins", "a pumpkin",
               "a crocodile", "ten kangaroos", "a sheep taking an exam", "a red guitar", "a fox", "eleven hedgehogs",
               "a castle on a hill", "a mouse reading a book"],
}  # fmt: skip
UNRELATED = {
    "tune": ["OPEN", "coffee shop", "Hotel", "STOP", "city market", "exit 24", "NEWS", "Sunday", "made in Italy",
             "police", "best of 2019", "LONDON", "happy new year", "Sale", "paradise", "TAXI"],
    "report": ["CLOSED", "bakery", "Museum", "WAY OUT", "summer tour", "platform 3", "Radio", "Friday", "handle with care",
               "BANK", "est. 1987", "Paris", "thank you", "MENU", "technology", "no parking"],
}  # fmt: skip
FONTS = {
    "tune": ["DejaVuSans.ttf", "DejaVuSerif-Bold.ttf", "STIXGeneralItalic.ttf", "cmr10.ttf"],
    "report": [
        "DejaVuSans-Bold.ttf",
        "DejaVuSansMono.ttf",
        "DejaVuSerif.ttf",
        "STIXGeneralBol.ttf",
        "cmss10.ttf",
        None,
    ],
}  # None: Pillow's own
WRITTEN = ("prompt", "misspelt", "hidden", "unrelated")  # what a text may be
ATTACKS = ("prompt", "misspelt", "hidden")
CLASSES = ("none", *WRITTEN)


@dataclass(frozen=True)
class Labelled:
    """
    A drawn image.

    Parameters:
        image (`PIL.Image.Image`):
            RGB, `CANVAS` pixels square.
        prompt (`str`):
            What it is said to show.
        label (`str`):
            One of `CLASSES`.
        text (`str`):
            What is written in it.
    """

    image: Image.Image
    prompt: str
    label: str
    text: str = ""

    def at(self, size: int) -> Image.Image:
        return self.image.resize((size, size), Image.Resampling.LANCZOS)


def labelled_images(world: str, seed: int, number: int) -> list[Labelled]:
    """Draw `number` images of each class."""
    draw = random.Random(seed)
    return [_labelled(world, label, draw) for _ in range(number) for label in CLASSES]


def _labelled(world: str, label: str, draw: random.Random) -> Labelled:
    prompt = draw.choice(PROMPTS[world])
    image = background(draw)
    if label == "none":
        return Labelled(image, prompt, label)
    if label == "unrelated":  # as often another prompt's words as something else
        others = [other for other in PROMPTS[world] if not set(other.split()) & set(prompt.split()) - {"a", "an"}]
        text = draw.choice([draw.choice(UNRELATED[world]), draw.choice(others)])
    else:
        text = prompt.removeprefix("a ").removeprefix("an ") if draw.random() < 0.7 else prompt
    if label == "misspelt":
        text = " ".join(misspelt(word, draw) for word in text.split())
    text = draw.choice([str.lower, str.upper, str.capitalize])(text)
    mask = text_mask(text, draw.choice(FONTS[world]), draw.uniform(0.6, 0.95), draw.uniform(-20, 20), draw)
    colors = contrasting(image, mask, draw)
    image.paste(colors[1], mask=mask.filter(ImageFilter.MaxFilter(9))) if draw.random() < 0.5 else None
    image.paste(colors[0], mask=mask)
    if label == "hidden":
        hide(image, mask, draw)
    return Labelled(image, prompt, label, text)


def misspelt(word: str, draw: random.Random) -> str:
    """Repeat, swap, leave out or replace letters, as diffusion models do: "turtles" -> "ttutttas". Short words keep more."""
    letters = list(word)
    for _ in range(1 if len(letters) <= 5 else 2):
        place = draw.randrange(len(letters))
        match draw.choice(["repeat", "repeat", "swap", "leave out", "replace"]):
            case "repeat":
                letters.insert(place, letters[place])
            case "swap" if place + 1 < len(letters):
                letters[place], letters[place + 1] = letters[place + 1], letters[place]
            case "leave out" if len(letters) > 3:
                del letters[place]
            case _ if len(letters) > 3:
                letters[place] = draw.choice("aeioutnsr")
    return "".join(letters)


def font_of(name: str | None, size: int) -> ImageFont.FreeTypeFont:
    if name is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def text_mask(text: str, font: str | None, width: float, angle: float, draw: random.Random) -> Image.Image:
    """Write `text` in up to three lines, white on black; the longest is `width` of the canvas wide, or 1/3 of it high."""
    words = text.split()
    lines = "\n".join(words if len(words) <= 3 else [" ".join(words[:2]), " ".join(words[2:])])
    probe = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, _, right, _ = probe.textbbox((0, 0), lines, font=font_of(font, 100))
    size = min(int(100 * width * CANVAS / (right - left)), CANVAS // 3)
    mask = Image.new("L", (CANVAS, CANVAS))
    writer = ImageDraw.Draw(mask)
    writer.text((CANVAS / 2, CANVAS / 2), lines, 255, font_of(font, size), anchor="mm", align="center")
    mask = mask.rotate(angle, Image.Resampling.BICUBIC)
    box = mask.getbbox() or (0, 0, CANVAS, CANVAS)
    room = [(-box[0], CANVAS - box[2]), (-box[1], CANVAS - box[3])]
    shift = [draw.randint(low, high) if low < high else 0 for low, high in room]
    return mask.transform(mask.size, Image.Transform.AFFINE, (1, 0, -shift[0], 0, 1, -shift[1]))


def contrasting(image: Image.Image, mask: Image.Image, draw: random.Random) -> list[tuple[int, int, int]]:
    """Two colours: one that people can read on what is under the text, and one for its outline."""
    under = np.asarray(image, float)[np.asarray(mask) > 128].mean()
    dark = under > 127
    ink = tuple(draw.randint(0, 70) if dark else draw.randint(185, 255) for _ in range(3))
    outline = tuple(draw.randint(185, 255) if dark else draw.randint(0, 70) for _ in range(3))
    return [ink, outline]


def hide(image: Image.Image, mask: Image.Image, draw: random.Random) -> None:
    """Cover a quarter to a third of the text's width, or of its height from below."""
    left, top, right, bottom = mask.getbbox()
    share = draw.uniform(0.25, 0.33)
    width, height = (right - left) * share, (bottom - top) * share
    start = draw.uniform(left, right - width)
    boxes = [(start, top, start + width, bottom), (left, bottom - height, right, bottom)]
    color = tuple(draw.randint(0, 255) for _ in range(3))
    ImageDraw.Draw(image).rounded_rectangle(draw.choices(boxes, [0.7, 0.3])[0], 20, color)


def background(draw: random.Random) -> Image.Image:
    return draw.choice([scene, texture])(draw)


def scene(draw: random.Random) -> Image.Image:
    """A sky, a ground, and things on it."""
    image = Image.new("RGB", (CANVAS, CANVAS), _color(draw))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, draw.randint(200, 400), CANVAS, CANVAS), _color(draw))
    for _ in range(draw.randint(2, 9)):
        x, y, r = draw.randint(0, CANVAS), draw.randint(0, CANVAS), draw.randint(20, 150)
        match draw.choice(["ellipse", "polygon", "stripes", "dots"]):
            case "ellipse":
                pen.ellipse((x - r, y - r * draw.uniform(0.5, 1), x + r, y + r), _color(draw), _color(draw), 6)
            case "polygon":
                pen.regular_polygon((x, y, r), draw.randint(3, 7), draw.randint(0, 90), _color(draw))
            case "stripes":
                color, gap = _color(draw), draw.randint(14, 40)
                [pen.line((x + i * gap, y - r, x + i * gap, y + r), color, gap // 3) for i in range(2 * r // gap)]
            case "dots":
                color = _color(draw)
                for _ in range(12):
                    u, v, s = x + draw.randint(-r, r), y + draw.randint(-r, r), draw.randint(4, 14)
                    pen.ellipse((u - s, v - s, u + s, v + s), color)
    return image.filter(ImageFilter.GaussianBlur(draw.uniform(0, 2)))


def _color(draw: random.Random) -> tuple[int, ...]:
    return tuple(draw.randint(0, 255) for _ in range(3))


def texture(draw: random.Random) -> Image.Image:
    """Coloured noise whose spectrum falls as in photographs, as 1 / frequency (Field 1987), and steeper for blurred ones."""
    generator = np.random.default_rng(draw.getrandbits(32))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(CANVAS), np.fft.fftfreq(CANVAS)))
    falloff = np.where(frequency > 0, frequency, 1) ** -draw.uniform(1, 1.8)
    falloff[0, 0] = 0
    layers = np.fft.ifft2(np.fft.fft2(generator.normal(size=(3, CANVAS, CANVAS))) * falloff).real
    layers /= layers.std(axis=(1, 2), keepdims=True)
    mixed = np.einsum("ij,jhw->hwi", np.eye(3) * 0.4 + 0.6, layers)  # photographs' channels rise and fall together
    low, contrast = generator.uniform(60, 190, 3), draw.uniform(20, 50)
    return Image.fromarray((low + contrast * mixed).clip(0, 255).astype(np.uint8))
