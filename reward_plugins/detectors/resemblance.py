"""How much a written text resembles the words of a prompt: "sixx ttutttas" is meant to be "six turtles", "OPEN" is not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from ..english import english

#: Words that say nothing about the content of a picture.
STOP_WORDS = frozenset(
    ["a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "her", "his", "in", "into", "is", "it", "its", "of", "on",
     "or", "over", "that", "the", "their", "this", "to", "under", "with"]
)  # fmt: skip
#: Similarity that a word of this many letters reaches with other words by chance, as "cat" does with "rat": no evidence.
CHANCE = {1: 0.95, 2: 0.9, 3: 0.66, 4: 0.6, 5: 0.5}
CHANCE_OF_LONGER = 0.45
DIGIT_EVIDENCE = 0.4  #: factor for a single digit: readers of text see digits in many round things
LONGEST_SPAN = 3  #: most pieces of text that are tried as one word, because readers split words


@dataclass(frozen=True)
class Line:
    """
    A line of text in an image.

    Parameters:
        text (`str`):
            The text that was read.
        confidence (`float`):
            The reader's confidence, in [0, 1].
        area (`float`):
            Share of the image's area, in [0, 1].
    """

    text: str
    confidence: float
    area: float


@dataclass(frozen=True)
class Match:
    """
    The written text that resembles a word of the prompt most.

    Parameters:
        score (`float`):
            Evidence that it is that word, in [0, 1]: similarity beyond chance, times the reader's confidence.
        written (`str`):
            The text, in lower case, without anything but letters and digits.
        word (`str`):
            The prompt's word, or several of its words in one.
        similarity (`float`):
            Similarity of the two, in [0, 1].
    """

    score: float = 0.0
    written: str = ""
    word: str = ""
    similarity: float = 0.0


def tokens(text: str) -> list[str]:
    """Return the words and numbers of a text: Latin letters in lower case without accents, and digits."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.findall("[a-z0-9]+", ascii_text)


@cache
def _digits() -> dict[str, str]:
    return {str(english().number_to_words(str(number))): str(number) for number in range(21)}


def spellings(word: str) -> frozenset[str]:
    """Return a word, its singular and plural, and a number also in words and digits."""
    if word.isdigit():
        return frozenset([word, *(name for name, digits in _digits().items() if digits == word)])
    if word in _digits():
        return frozenset([word, _digits()[word]])
    return frozenset([word, english().singular_noun(word) or english().plural(word)])


@cache
def prompt_words(prompt: str) -> Mapping[str, frozenset[str]]:
    """
    Return the words that an image could show to feign the prompt, each with its spellings.

    These are the prompt's words without stop words, and all of its words in one, with and without stop words, because
    readers of text join words. Empty if the prompt has only stop words, or no Latin letter and no digit.
    """
    words = tokens(prompt)
    content = [word for word in words if word not in STOP_WORDS]
    found = {word: spellings(word) for word in content}
    if content and len(words) > 1:
        found[" ".join(words)] = frozenset(["".join(words), "".join(content)])
    return found


def similarity(written: str, word: str) -> float:
    """
    Return how similar two words are, in [0, 1], 1 for equal.

    The largest of: normalised Indel similarity, 2 x longest common subsequence / sum of lengths; the same with runs of a
    letter as one letter, for "sixx"; for words of 5 letters or more in longer texts, 0.97 x Indel similarity with the
    most similar part of the text. Numbers are equal or not.
    """
    from rapidfuzz import fuzz
    from rapidfuzz.distance import Indel

    if written.isdigit() or word.isdigit():
        return float(written == word)
    found = [
        Indel.normalized_similarity(written, word),
        Indel.normalized_similarity(_without_runs(written), _without_runs(word)),
    ]
    if len(written) > len(word) >= 5:
        found.append(0.97 * fuzz.partial_ratio(word, written) / 100)
    return max(found)


def _without_runs(text: str) -> str:
    return re.sub(r"(.)\1+", r"\1", text)


def evidence(found: float, word: str) -> float:
    """Return how far a similarity to a word is beyond chance, in [0, 1]: (similarity - chance) / (1 - chance)."""
    chance = CHANCE.get(len(word), CHANCE_OF_LONGER)
    return max(0.0, (found - chance) / (1 - chance)) * (DIGIT_EVIDENCE if word.isdigit() and len(word) == 1 else 1)


def best_match(lines: Sequence[Line], words: Mapping[str, Iterable[str]]) -> Match:
    """
    Return the strongest match between the written text and the words of the prompt.

    Args:
        lines (`Sequence[Line]`):
            One reading of an image, in reading order.
        words (`Mapping[str, Iterable[str]]`):
            Words of the prompt, from [`prompt_words`].
    """
    matches = (
        Match(evidence(found, form) * confidence, written, word, found)
        for written, confidence in spans(lines)
        for word, forms in words.items()
        for form in forms
        for found in [similarity(written, form)]
    )
    return max(matches, key=lambda match: (match.score, match.similarity, match.word, match.written), default=Match())


def spans(lines: Sequence[Line]) -> Iterator[tuple[str, float]]:
    """Yield each piece of text, and neighbours as one, with the least confidence among them; but no stop words alone."""
    pieces = [(token, line.confidence) for line in lines for token in tokens(line.text)]
    for start in range(len(pieces)):
        for stop in range(start + 1, min(start + LONGEST_SPAN, len(pieces)) + 1):
            part = pieces[start:stop]
            if all(token in STOP_WORDS for token, _ in part):
                continue
            yield "".join(token for token, _ in part), min(confidence for _, confidence in part)
