"""What the world is made of: animals, objects, activities and colours, as tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: The 45 animals of the DDPO paper (arXiv:2305.13301), which rewards and prompts are about.
ANIMALS = _words(
    """ant bat bear bee beetle bird butterfly camel cat chicken cow deer dog dolphin duck fish fly fox frog goat goose
    gorilla hedgehog horse kangaroo lion lizard llama monkey mouse pig rabbit raccoon rat shark sheep snake spider
    squirrel tiger turkey turtle whale wolf zebra"""
)
OTHER_ANIMALS = _words(
    """badger crab crocodile dragon eagle elephant flamingo giraffe hamster hippo jellyfish koala ladybug lobster octopus
    otter owl panda parrot peacock penguin rooster scorpion seal sloth snail squid swan unicorn"""
)
OBJECTS = _words(
    """airplane anchor apple banana bed bell bike book bread broccoli bus cactus cake camera candle car carrot castle
    chair cheese clock cookie corn crown donut drum egg fire flower gift glasses grapes guitar hammer hat heart house
    key lamp leaf lemon lock moon mushroom pencil phone pizza robot rocket scissors shirt shoe star strawberry sun
    television tomato tree trumpet umbrella watermelon"""
)
#: The three activities of the paper, then some others.
ACTIVITIES = (
    "riding a bike",
    "playing chess",
    "washing the dishes",
    "driving a car",
    "eating pizza",
    "wearing a hat",
    "reading a book",
    "playing the guitar",
)
COLOURS = {
    "red": (220, 50, 47),
    "orange": (240, 140, 40),
    "yellow": (245, 215, 70),
    "green": (80, 170, 80),
    "blue": (70, 120, 215),
    "purple": (140, 80, 180),
    "pink": (245, 160, 190),
    "brown": (140, 95, 60),
    "gray": (140, 140, 145),
    "black": (25, 25, 30),
    "white": (248, 248, 248),
}
SUBJECTS = ANIMALS + OTHER_ANIMALS + OBJECTS
#: What a judge that reads says of plain colours and noise.
NOTHING = "nothing"

#: Things that only scenes use.
PROPS = ("pawn", "dish")

#: Icon names where they are not the word itself; of animals that have both, the face is the one told apart at 64 pixels.
ICON_NAMES = {
    "bee": "honeybee",
    "bike": "bicycle",
    "book": "closed-book",
    "bread": "bread",
    "cake": "birthday-cake",
    "car": "automobile",
    "cat": "cat-face",
    "cheese": "cheese-wedge",
    "clock": "alarm-clock",
    "corn": "ear-of-corn",
    "cow": "cow-face",
    "dish": "fork-and-knife-with-plate",
    "dog": "dog-face",
    "donut": "doughnut",
    "flower": "hibiscus",
    "gift": "wrapped-gift",
    "apple": "red-apple",
    "hat": "top-hat",
    "heart": "red-heart",
    "hippo": "hippopotamus",
    "ladybug": "lady-beetle",
    "lamp": "light-bulb",
    "leaf": "maple-leaf",
    "lock": "locked",
    "monkey": "monkey-face",
    "moon": "crescent-moon",
    "mouse": "mouse-face",
    "pawn": "chess-pawn",
    "phone": "mobile-phone",
    "pig": "pig-face",
    "rabbit": "rabbit-face",
    "sheep": "ewe",
    "shirt": "t-shirt",
    "shoe": "running-shoe",
    "squirrel": "chipmunk",
    "tiger": "tiger-face",
    "tree": "deciduous-tree",
}


@dataclass(frozen=True)
class HeldOut:
    """
    What no training caption may name: evaluation is where a model meets it first.

    Args:
        animals (`frozenset[str]`): Held out entirely; none of the 45.
        objects (`frozenset[str]`): Held out entirely.
        pairs (`frozenset[tuple[str, str]]`): (animal, activity); both are trained on, only not together.
    """

    animals: frozenset[str]
    objects: frozenset[str]
    pairs: frozenset[tuple[str, str]]

    @classmethod
    def read(cls) -> HeldOut:
        """Read the list that ships with the recipe."""
        table = json.loads(Path(__file__).with_name("held_out.json").read_text(encoding="utf-8"))
        return cls(frozenset(table["animals"]), frozenset(table["objects"]), frozenset(map(tuple, table["pairs"])))

    @property
    def words(self) -> frozenset[str]:
        """Animals and objects."""
        return self.animals | self.objects


def with_article(word: str) -> str:
    """Return "a cat", "an ant"; "a unicorn" is the one exception among our words."""
    return f"{'an' if word[0] in 'aeiou' and word != 'unicorn' else 'a'} {word}"
