"""English for computers: articles, plurals, and numbers in words."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import inflect

# Letters, also with hyphens between them ("twenty-one"), or a number.
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*|\d+(?:[.,]\d+)*")


@cache
def english() -> inflect.engine:
    """Return the engine, which this process builds only once."""
    import inflect  # here, because it takes seconds to import

    return inflect.engine()


def contains(text: str, phrase: str) -> bool:
    """
    Return whether the words of a phrase occur in a text, one after the other.

    Only whole words count, in any case; singular and plural are alike, and so are digits and number words up to a hundred:
    "six turtles" is in "There are 6 turtles." and "turtle" is too, "six" is not in "sixteen" or "six-legged".
    """
    wanted, given = _words(phrase), _words(text)
    return bool(wanted) and any(
        all(_alike(word, other) for word, other in zip(wanted, given[start:], strict=False))
        for start in range(len(given) - len(wanted) + 1)
    )


def _words(text: str) -> list[str]:
    return [_numbers().get(word, word) for word in _WORD.findall(text.lower())]


@cache
def _numbers() -> dict[str, str]:
    return {str(english().number_to_words(str(number))): str(number) for number in range(101)}


@lru_cache(maxsize=100_000)
def _alike(word: str, other: str) -> bool:
    if word == other:
        return True
    return word.isalpha() and other.isalpha() and bool(english().compare_nouns(word, other))
