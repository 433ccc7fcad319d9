"""
The prompts of the DDPO paper (arXiv:2305.13301), as tables.

The 45 animals and 3 activities are those it trains on; the counting prompts are those that led to typographic attacks. Sets that
are called unseen or other have none of these prompts: they show whether what was learned generalises. Their words are in files,
with articles and plurals, because the package that knows these takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Any

UNSEEN_ACTIVITIES = ("taking an exam", "driving a car")
ARTICLES = ("a ", "an ")
ACTIVITIES = ("riding a bike", "playing chess", "washing the dishes")
COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}


def _lines(name: str) -> list[str]:
    return files("reward_plugins").joinpath(name).read_text(encoding="utf-8").splitlines()


def animals(name: str = "animals.txt") -> list[dict[str, str]]:
    """Return 45 rows: `prompt` "a(n) [animal]" as in the article (the authors' code has bare words), `animal`."""
    return [{"prompt": animal, "animal": _noun(animal)} for animal in _lines(name)]


def _noun(text: str) -> str:
    """Return what is behind the article, if there is one: some words are plurals."""
    article = next((article for article in ARTICLES if text.startswith(article)), "")
    return text.removeprefix(article)


def unseen_animals() -> list[dict[str, str]]:
    """Return 38 rows like those of [`animals`], of the animals on which the authors tried whether training generalises."""
    return animals("unseen_animals.txt")


def other_animals() -> list[dict[str, str]]:
    """Return 19 rows like those of [`animals`], of animals that the embedded model can draw, too."""
    return animals("other_animals.txt")


def unpictured_animals() -> list[dict[str, str]]:
    """Return 10 rows like those of [`animals`], of animals that the embedded model was shown as written words only."""
    return animals("unpictured_animals.txt")


def everyday_objects() -> list[dict[str, str]]:
    """Return 50 rows: `prompt` "a(n) [object]", `object`; also of the authors' study of generalisation."""
    return [{"prompt": thing, "object": _noun(thing)} for thing in _lines("everyday_objects.txt")]


def _doing(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"prompt": f"{animal} {activity}", "animal": _noun(animal), "activity": activity} for animal, activity in pairs
    ]


def animal_activities() -> list[dict[str, str]]:
    """Return 45 x 3 rows: `prompt` "a(n) [animal] [activity]", `animal`, `activity`."""
    return _doing((animal, activity) for animal in _lines("animals.txt") for activity in ACTIVITIES)


def unseen_activities() -> list[dict[str, str]]:
    """Return 45 x 2 rows like those of [`animal_activities`], of activities that are not trained on."""
    return _doing((animal, activity) for animal in _lines("animals.txt") for activity in UNSEEN_ACTIVITIES)


def unseen_combinations() -> list[dict[str, str]]:
    """Return 42 rows like those of [`animal_activities`], which no caption named when the embedded model was made."""
    pairs = (line.partition(", ") for line in _lines("unseen_combinations.txt"))
    return _doing((animal, activity) for animal, _, activity in pairs)


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
    return _counted("counted_animals.txt")


def unseen_counting() -> list[dict[str, Any]]:
    """Return 10 x 7 rows like those of [`counting`], of animals that are not trained on."""
    return _counted("unseen_counted_animals.txt")


def _counted(name: str) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"{word} {plural}",
            "count": count,
            "animal": animal,
            "questions": [f"How many {plural} are there in this image?", "What animal is in this image?"],
            "answers": [word, animal],
        }
        for animal, _, plural in (line.partition(", ") for line in _lines(name))
        for word, count in COUNTS.items()
    ]
