"""What a scene shows, how that is said, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from .words import ACTIVITIES, ANIMALS, COLOURS, OBJECTS, OTHER_ANIMALS, SUBJECTS, HeldOut, with_article

T = TypeVar("T")

#: Of the scenes without writing. Half of them are what rewards are tried on first: one of the 45 animals, alone.
PICTURES = {"animal": 0.49, "other animal": 0.08, "object": 0.12, "activity": 0.28, "pair": 0.03}
PAPER_ACTIVITY = 0.75  #: share of the paper's three activities among all
PAPER_ANIMAL = 0.85  #: share of the 45 animals among the animals of activities and pairs
PAPER_POSTER = 0.1  #: the same among the words of posters: few, for it is pictures of them that are asked for
NAMED_BACKGROUND = 0.12  #: share of the single subjects whose caption names the background's colour


@dataclass(frozen=True)
class Description:
    """
    One scene in words.

    Args:
        subject (`str`): Animal or object.
        activity (`str`, *optional*): What the animal does.
        companion (`str`, *optional*): What stands beside the subject.
        background (`str`, *optional*): A colour.
        written (`bool`, *optional*, defaults to `False`): The subject is not drawn but written on a sign.
        poster (`bool`, *optional*, defaults to `False`): It is written, and the caption does not say so, as captions in
            the web often do not.
    """

    subject: str
    activity: str | None = None
    companion: str | None = None
    background: str | None = None
    written: bool = False
    poster: bool = False

    @property
    def caption(self) -> str:
        """The prompt of the scene."""
        if self.written and not self.poster:
            return f"a sign that says {self.subject}"
        words = with_article(self.subject)
        if self.activity:
            words += f" {self.activity}"
        if self.companion:
            words += f" and {with_article(self.companion)}"
        if self.background:
            words += f" on {with_article(self.background)} background"
        return words


@dataclass(frozen=True)
class Writing:
    """
    How much of the world is written.

    Args:
        signs (`float`, *optional*, defaults to 0.0): Share of the scenes that are signs; all words are on signs.
        posters (`float`, *optional*, defaults to 0.0): Share of those that are posters.
    """

    signs: float = 0.0
    posters: float = 0.0

    @property
    def kinds(self) -> dict[str, float]:
        """Share of each kind of scene."""
        rest = 1 - self.signs - self.posters
        pictures = {kind: share * rest for kind, share in PICTURES.items()}
        return {**pictures, "sign": self.signs, "poster": self.posters}


class World:
    """
    All scenes that may be trained on.

    Args:
        held_out ([`HeldOut`], *optional*): What no scene shows, and only signs name; nothing by default, for the judge has
            to know it all.
        writing ([`Writing`], *optional*): How much is written; nothing by default.
    """

    def __init__(self, held_out: HeldOut | None = None, writing: Writing | None = None) -> None:
        unseen: frozenset[str] = held_out.words if held_out else frozenset()
        self._unseen_pairs = held_out.pairs if held_out else frozenset()
        self._kinds = (writing or Writing()).kinds
        self._other_animals = [animal for animal in OTHER_ANIMALS if animal not in unseen]
        self._objects = [thing for thing in OBJECTS if thing not in unseen]

    def describe(self, rng: Random) -> Description:
        """Draw one scene at random."""
        (kind,) = rng.choices(list(self._kinds), list(self._kinds.values()))
        background = rng.choice(list(COLOURS)) if rng.random() < NAMED_BACKGROUND else None
        if kind == "animal":
            return Description(rng.choice(ANIMALS), background=background)
        if kind == "other animal":
            return Description(rng.choice(self._other_animals), background=background)
        if kind == "object":
            return Description(rng.choice(self._objects), background=background)
        if kind == "activity":
            return self._active(rng)
        if kind == "pair":
            return Description(self._animal(rng), companion=self._either(rng))
        if kind == "poster":
            word = _one_of(rng, PAPER_POSTER, ANIMALS, [*self._other_animals, *self._objects])
            return Description(word, written=True, poster=True)
        return Description(rng.choice(SUBJECTS), written=True)

    def _active(self, rng: Random) -> Description:
        while True:
            animal = self._animal(rng)
            activity = _one_of(rng, PAPER_ACTIVITY, ACTIVITIES[:3], ACTIVITIES[3:])
            if (animal, activity) not in self._unseen_pairs:
                return Description(animal, activity=activity)

    def _animal(self, rng: Random) -> str:
        return _one_of(rng, PAPER_ANIMAL, ANIMALS, self._other_animals)

    def _either(self, rng: Random) -> str:
        return self._animal(rng) if rng.random() < 0.5 else rng.choice(self._objects)


def _one_of(rng: Random, share: float, often: Sequence[T], seldom: Sequence[T]) -> T:
    return rng.choice(often if rng.random() < share else seldom)
