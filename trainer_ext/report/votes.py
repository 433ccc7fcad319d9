"""Blind votes: a page with pairs of pictures whose sides only this module knows, and what the answers say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .gallery import Card, Frame

LEFT, RIGHT, TIE = "left", "right", "neither"
MAX_VOTES_BYTES = 10_000_000  #: of a file of answers


@dataclass(frozen=True)
class Pair:
    """
    A prompt and seed before and after training, in an order that the reader cannot know.

    Parameters:
        name (`str`):
            Identifies the pair in the answers.
        prompt (`str`):
            What was asked for.
        left, right ([`Frame`]):
            The pictures.
        trained (`str`):
            The side of the trained model.
    """

    name: str
    prompt: str
    left: Frame
    right: Frame
    trained: str


@dataclass(frozen=True)
class Ballot:
    """
    The pairs that people are asked about.

    Parameters:
        name (`str`):
            Changes with the run, the moments and the pairs, so that answers to another ballot are refused.
        pairs (`Sequence[Pair]`):
            The pairs.
    """

    name: str
    pairs: Sequence[Pair]

    @classmethod
    def of(cls, cards: Sequence[Card], run: str) -> Ballot:
        """Make the ballot of some cards; `run` identifies the run. It is empty where there is nothing to compare."""
        ends = [(card, card.base, card.result) for card in cards]
        both = [(c, b, r) for c, b, r in ends if b is not None and r is not None and b.file and r.file and b is not r]
        content = [run, *([c.dataset, c.prompt, c.seed, b.updates, r.updates] for c, b, r in both)]
        name = _hash(json.dumps(content))[:16]
        return cls(name, [_pair(name, *ends) for ends in both])


def _pair(ballot: str, card: Card, base: Frame, result: Frame) -> Pair:
    digest = _hash(json.dumps([ballot, card.dataset, card.prompt, card.seed]))
    trained = LEFT if int(digest, 16) % 2 else RIGHT
    sides = (result, base) if trained == LEFT else (base, result)
    return Pair(digest[:16], card.prompt, *sides, trained)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class VoteResult:
    """
    What people preferred.

    Parameters:
        wins, losses, ties (`int`):
            Answers for the trained model, for the base model, and for neither.
        voters (`int`):
            Files of answers.
    """

    wins: int
    losses: int
    ties: int
    voters: int

    def __str__(self) -> str:
        total = self.wins + self.losses
        if not total:
            return f"Nobody preferred one side: {self.ties} answers for neither."
        low, high = self.interval
        return (
            f"The trained model won {self.wins} of {total} blind votes: {self.wins / total:.0%}, Wilson's 95 % interval "
            f"{low:.0%} to {high:.0%}. {self.ties} more for neither; {self.voters} "
            f"{'file' if self.voters == 1 else 'files'} of answers."
        )

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the win rate, ties left out."""
        from scipy import stats  # half a second

        found = stats.binomtest(self.wins, self.wins + self.losses).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


def count_votes(ballot: Ballot, files: Sequence[Path]) -> VoteResult:
    """
    Count answers.

    Raises:
        [`ConfigError`]: a file is not one that the ballot's page saved.
    """
    sides = {pair.name: pair.trained for pair in ballot.pairs}
    answers = [(sides[name], side) for file in files for name, side in _answers(ballot, file).items()]
    wins, ties = sum(side == trained for trained, side in answers), sum(side == TIE for _, side in answers)
    return VoteResult(wins, len(answers) - wins - ties, ties, len(files))


def _answers(ballot: Ballot, file: Path) -> Mapping[str, str]:
    content = _read(file)
    if content.get("ballot") != ballot.name:
        raise ConfigError(
            f"The votes in {file} answer another page: of another run, or of this one before it went on. Count them with the "
            "folder as it was, or collect votes on the page that this command writes."
        )
    answers = content.get("votes")
    known = {pair.name for pair in ballot.pairs}
    if (
        not isinstance(answers, dict)
        or not answers.keys() <= known
        or not set(map(str, answers.values())) <= {LEFT, RIGHT, TIE}
    ):
        raise ConfigError(
            f"The votes in {file} are damaged: `votes` must give {LEFT!r}, {RIGHT!r} or {TIE!r} for pairs of the page."
        )
    return answers


def _read(file: Path) -> Mapping[str, Any]:
    try:
        if file.stat().st_size > MAX_VOTES_BYTES:
            raise ConfigError(f"{file} is too large for votes. Give a file that the page for votes saved.")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"The votes in {file} cannot be read ({type(error).__name__}). Give a file that the page for votes saved."
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds no votes. Give a file that the page for votes saved.")
    return content
