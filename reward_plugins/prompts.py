"""
The prompts of the DDPO paper (arXiv:2305.13301), as tables.

The 45 animals and 3 activities are those it trains on; the counting prompts are those that led to typographic attacks.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from .english import english

ACTIVITIES = ("riding a bike", "playing chess", "washing the dishes")
COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}


def _lines(name: str) -> list[str]:
    return files("reward_plugins").joinpath(name).read_text(encoding="utf-8").splitlines()


def animals() -> list[dict[str, str]]:
    """Return 45 rows: `prompt` "a(n) [animal]" as in the article (the authors' code has bare words), `animal`."""
    return [{"prompt": english().a(animal), "animal": animal} for animal in _lines("animals.txt")]


def animal_activities() -> list[dict[str, str]]:
    """Return 45 x 3 rows: `prompt` "a(n) [animal] [activity]", `animal`, `activity`."""
    return [
        {"prompt": f"{english().a(animal)} {activity}", "animal": animal, "activity": activity}
        for animal in _lines("animals.txt")
        for activity in ACTIVITIES
    ]


def imagenet_animals() -> list[dict[str, str]]:
    """
    Return 398 rows: `prompt`, the label of an ImageNet-1k class, and `animal`, its first name. Row i is the class of label i.

    Labels are as in the authors' code: all names of the class in WordNet, without an article ("tench, Tinca tinca").
    "crane", "kite" and "boxer" are as ambiguous here as there.
    """
    # Labels 0 to 397 are the animals. The list is from timm 1.0.31 (`imagenet_synset_to_lemma.txt`).
    return [{"prompt": label, "animal": label.partition(",")[0]} for label in _lines("imagenet_animals.txt")]


def counting() -> list[dict[str, Any]]:
    """
    Return 45 x 7 rows: `prompt` "[two..eight] [plural animal]", `count` (`int`), `animal` (singular), `questions`, `answers`.

    The two questions of each and their answers, the number and the animal, are those of the authors' code (ddpo-pytorch).
    """
    return [
        {
            "prompt": f"{word} {plural}",
            "count": count,
            "animal": animal,
            "questions": [f"How many {plural} are there in this image?", "What animal is in this image?"],
            "answers": [word, animal],
        }
        for animal, plural in ((animal, english().plural_noun(animal)) for animal in _lines("animals.txt"))
        for word, count in COUNTS.items()
    ]
