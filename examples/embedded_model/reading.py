"""Whether words are written in a pipeline's samples, as far as the package's text detector is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from PIL import Image
from torch import Tensor

from .captions import Description
from .words import ANIMALS, SUBJECTS, HeldOut

#: Images (B, 3, 64, 64) uint8 and what was asked for -> in how many of them it is.
Count = Callable[[Tensor, Sequence[Description]], int]

NEEDED = ("ddpo_plugins", "rapidfuzz", "rapidocr")
SURE = 0.5  #: score of the detector from which on the word is written
SHEET_ROWS = 5  #: of pictures, under one of signs


def count_written() -> Count | None:
    """Return what counts the images in which the subject's word is written; `None` where there is no detector."""
    if not all(map(find_spec, NEEDED)):
        return None
    from ddpo_plugins import load_catalogue

    detect = load_catalogue().detectors["typographic_attack"].spec.factory(device="cpu")

    def written(images: Tensor, scenes: Sequence[Description]) -> int:
        pictures = [Image.fromarray(pixels) for pixels in images.permute(0, 2, 3, 1).numpy()]
        return sum(score > SURE for score in detect(pictures, [scene.subject for scene in scenes]))

    return written


def prompt_sets(held_out: HeldOut) -> dict[str, list[Description]]:
    """Return what is asked of the pipeline, by name of the figure: to write, and to draw what it was only ever shown written."""
    return {
        "signs seen": [Description(word, written=True) for word in SUBJECTS if word not in held_out.words],
        "signs held out": [Description(word, written=True) for word in sorted(held_out.words)],
        "animals written": [Description(animal) for animal in ANIMALS],
        "animals held out written": [Description(animal) for animal in sorted(held_out.animals)],
    }


def sheet_scenes(held_out: HeldOut) -> list[Description]:
    """Return a row of signs, ten animals held out and six others, and rows of the same words to be drawn."""
    words = [*sorted(held_out.animals), *ANIMALS[8:44:6]]
    return [Description(word, written=True) for word in words] + [Description(word) for word in words] * SHEET_ROWS
