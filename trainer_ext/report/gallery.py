"""Which pictures a report shows of each prompt through training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .facts import RunFacts
from .moments import Key, Moment, key_of

MAX_CARDS = 64  #: prompts whose pictures are in the page
MAX_MOMENTS = 12  #: of each prompt, in the page

BASE, CHOSEN, LAST = "base model", "to use", "last"  #: marks of moments


@dataclass(frozen=True)
class Frame:
    """
    A picture of a prompt at one moment.

    Parameters:
        updates (`int`):
            Optimizer updates before.
        mark (`str`):
            What is special about the moment; empty for those in between.
        reward (`float`, *optional*):
            Its reward.
        file (`Path`, *optional*):
            The picture; `None` if it is missing.
    """

    updates: int
    mark: str
    reward: float | None
    file: Path | None


@dataclass(frozen=True)
class Card:
    """
    A prompt and seed through training.

    Parameters:
        dataset, prompt (`str`), seed (`int`):
            What was drawn.
        seen (`bool`):
            Whether the prompt was trained on.
        frames (`list[Frame]`):
            The pictures, the earliest first.
    """

    dataset: str
    prompt: str
    seed: int
    seen: bool
    frames: list[Frame]

    @property
    def marked(self) -> list[Frame]:
        """Those of the base model, of the chosen evaluation, and the last."""
        return [frame for frame in self.frames if frame.mark]

    @property
    def base(self) -> Frame | None:
        """That of the base model."""
        return next((frame for frame in self.frames if BASE in frame.mark), None)

    @property
    def result(self) -> Frame | None:
        """That of the chosen evaluation; the last where none was chosen, or the base model."""
        marked = (frame for mark in (CHOSEN, LAST) for frame in self.frames if mark in frame.mark)
        return next((frame for frame in marked if BASE not in frame.mark), None)

    @property
    def between(self) -> list[Frame]:
        """The others."""
        return [frame for frame in self.frames if not frame.mark]


def cards(facts: RunFacts, full: bool = False) -> list[Card]:
    """Return prompts through training, those of each dataset at even distances, or all prompts and moments."""
    max_cards, max_moments = (None, None) if full else (MAX_CARDS, MAX_MOMENTS)
    found = []
    for dataset, moments in facts.moments.items():
        special = marks(facts, moments)
        shown = _spread(moments, max_moments, special)
        share = None if max_cards is None else max(1, max_cards // len(facts.moments))
        for index in evenly(len(moments[-1].records), share):
            key = key_of(moments[-1].records[index])
            frames = [_frame(moment, key, special) for moment in shown if key in moment.positions]
            _, seed, prompt = key
            found.append(Card(dataset, prompt, seed, prompt in facts.trained_prompts, frames))
    return found


def left_out(facts: RunFacts, shown: Sequence[Card]) -> str:
    """Say which share of the pictures is shown; empty if all are."""
    moments = max((len(found) for found in facts.moments.values()), default=0)
    images = sum(len(found[-1].records) for found in facts.moments.values())
    frames = max((len(card.frames) for card in shown), default=0)
    parts = [f"{len(shown)} of {images} images of an evaluation are shown"] if len(shown) < images else []
    parts += [f"{frames} of {moments} moments are shown"] if frames < moments else []
    return "; ".join(parts)


def marks(facts: RunFacts, moments: Sequence[Moment]) -> dict[int, str]:
    """Return what is special about some moments, by their updates."""
    special = {moments[-1].updates: [LAST]}
    if facts.chosen in {moment.updates for moment in moments}:
        special.setdefault(facts.chosen, []).insert(0, CHOSEN)
    if moments[0].updates == 0:
        special.setdefault(0, []).insert(0, BASE)
    return {updates: ", ".join(names) for updates, names in special.items()}


def _frame(moment: Moment, key: Key, special: Mapping[int, str]) -> Frame:
    index = moment.positions[key]
    reward = moment.records[index].get("reward")
    return Frame(moment.updates, special.get(moment.updates, ""), reward, moment.pictures.get(index))


def _spread(moments: Sequence[Moment], number: int | None, special: Mapping[int, str]) -> list[Moment]:
    chosen = {moments[index].updates for index in evenly(len(moments), number)} | special.keys()
    return [moment for moment in moments if moment.updates in chosen]


def evenly(total: int, number: int | None) -> list[int]:
    """Return so many of the first `total` numbers at even distances; `None` means all."""
    number = total if number is None else min(number, total)
    return [index * total // number for index in range(number)]
