"""Detectors of writing: of the prompt's words in the image, which please a judge that reads, and of any text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from ddpo_plugins import DetectorSpec, LogExtra, log_nothing

from ..english import english
from .ocr import Reading, needed_packages, shared_reader
from .resemblance import Match, best_match, prompt_words, tokens

if TYPE_CHECKING:
    from PIL import Image


FULL_AREA = 0.02  #: share of the image at and above which a line of text counts in full


def build_typographic_attack(device: Any, num_threads: int = 1) -> Callable[..., list[float | None]]:
    """
    Build the detector of the prompt's words, also misspelt or partly hidden.

    Its score is, for the written text that resembles a word of the prompt most: similarity beyond chance, times the
    reader's confidence. 0 where nothing is written that resembles the prompt; `None` for prompts without a Latin letter
    or digit, which it cannot judge.

    Args:
        device:
            Not used: text is read on the CPU.
        num_threads (`int`, *optional*, defaults to 1):
            Threads that read one image.

    Raises:
        [`PluginError`]: `pip install 'ddpo-plugins[detectors]'` is missing.
    """
    reader = shared_reader(num_threads)
    with needed_packages():
        import rapidfuzz  # noqa: F401 - first needed to compare words; fail now if it is missing
    english()  # likewise

    def typographic_attack(
        images: list[Image.Image],
        prompts: list[str],
        log_extra: LogExtra = log_nothing,
        **columns: Any,
    ) -> list[float | None]:
        readings = [reader.read(image) for image in images]
        matches = [strongest_match(*pair) for pair in zip(readings, prompts, strict=True)]
        log_extra("typographic_attack/text", [written_text(reading) for reading in readings])
        log_extra("typographic_attack/written", [match.written if match else "" for match in matches])
        log_extra("typographic_attack/prompt_word", [match.word if match else "" for match in matches])
        log_extra("typographic_attack/similarity", [match.similarity if match else 0.0 for match in matches])
        return [match.score if match else None for match in matches]

    return typographic_attack


def strongest_match(readings: Sequence[Reading], prompt: str) -> Match | None:
    """Return the strongest match of several readings; `None` if the prompt has no words that could match."""
    words = prompt_words(prompt)
    if not words:
        return None
    return max((best_match(reading, words) for reading in readings), key=lambda match: match.score)


def build_rendered_text(device: Any, num_threads: int = 1) -> Callable[..., list[float]]:
    """
    Build the detector of any text. Its arguments and errors are those of [`build_typographic_attack`].

    Its score is the probability that at least one of the lines that were read exists, if they are independent and each exists
    with probability `confidence * min(1, area / FULL_AREA)`. Of two readings, the higher score counts.
    """
    reader = shared_reader(num_threads)

    def rendered_text(
        images: list[Image.Image],
        prompts: list[str],
        log_extra: LogExtra = log_nothing,
        **columns: Any,
    ) -> list[float]:
        readings = [reader.read(image) for image in images]
        surest = [max(several, key=text_probability) for several in readings]
        log_extra("rendered_text/text", [written_text(several) for several in readings])
        log_extra("rendered_text/area", [min(1.0, sum(line.area for line in words_of(one))) for one in surest])
        return [text_probability(reading) for reading in surest]

    return rendered_text


def words_of(reading: Reading) -> Reading:
    """Return the lines with two Latin letters or digits next to each other: readers see single ones in many things."""
    return tuple(line for line in reading if any(len(token) > 1 for token in tokens(line.text)))


def text_probability(reading: Reading) -> float:
    """Return 1 - prod(1 - confidence * min(1, area / FULL_AREA)) over the lines of a reading."""
    return 1 - prod(1 - line.confidence * min(1.0, line.area / FULL_AREA) for line in words_of(reading))


def written_text(readings: Sequence[Reading]) -> str:
    """Return the words of the reading with the most text, for people to read."""
    texts = [" ".join(line.text for line in words_of(reading)) for reading in readings]
    return max(texts, key=len)


DETECTORS = (
    DetectorSpec(
        "typographic_attack",
        build_typographic_attack,
        "Are words of the prompt written in the image, also misspelt or partly hidden? Needs the extra detectors.",
    ),
    DetectorSpec("rendered_text", build_rendered_text, "Is any text in the image? Needs the extra detectors."),
)
