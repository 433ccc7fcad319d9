"""The verdict on a run, in words, with the rule that led to it. See `measures.rules` for how it is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class VerdictKind(Enum):
    """What can be said of a run."""

    HEALTHY = "healthy"
    OVER_OPTIMISED = "over-optimised"
    NOT_LEARNING = "not learning"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Verdict:
    """
    Whether a run learned what its reward stands for.

    Parameters:
        kind ([`VerdictKind`]):
            The verdict.
        sentence (`str`):
            The verdict in words.
        rule (`str`):
            The rule that led to it, in words.
        numbers (`Mapping[str, float]`):
            The numbers that the rule compared, by name.
        since_update (`int`, *optional*):
            Updates of the evaluation from which on an over-optimised run lost what was not rewarded.
        chosen (`int`, *optional*):
            Updates of the evaluation whose weights to use; 0 for the model before training.
    """

    kind: VerdictKind
    sentence: str
    rule: str
    numbers: Mapping[str, float]
    since_update: int | None = None
    chosen: int | None = None

    def __str__(self) -> str:
        return self.sentence
