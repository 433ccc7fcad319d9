"""The tables of a report: values only, no markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ddpo_plugins.names import DETECTORS

from ..runs.measures.formulas import column
from ..runs.measures.paired import PairedFigure, bootstrapped_figure
from ..types import FloatArray
from .facts import RunFacts
from .moments import Moment, shared

MAX_ROWS = 1000  #: of the table of prompts
SECONDS = {
    "seconds/rollout": "sampling for training",
    "seconds/reward_wait": "waiting for rewards",
    "seconds/training": "training",
    "seconds/evaluation": "evaluation",
}


@dataclass(frozen=True)
class PromptRow:
    """
    A prompt before training, and in the evaluation to use.

    Parameters:
        dataset, prompt (`str`):
            The prompt, and where it is from.
        seen (`bool`):
            True if it was trained on.
        reward ([`PairedFigure`], *optional*):
            Change of the trained reward; `None` without two images to compare.
        held_out ([`PairedFigure`], *optional*):
            Change of the first held-out reward.
        detection (`float`, *optional*):
            The highest score that a detector gave afterwards.
    """

    dataset: str
    prompt: str
    seen: bool
    reward: PairedFigure | None
    held_out: PairedFigure | None
    detection: float | None


def ends(facts: RunFacts, moments: Sequence[Moment]) -> tuple[Moment, Moment]:
    """Return the first of some moments, and the one to use; the last where none was chosen, or the base model."""
    chosen = [moment for moment in moments if moment.updates and moment.updates == facts.chosen]
    return moments[0], chosen[0] if chosen else moments[-1]


def pairs(first: Moment, then: Moment, name: str, positions: Sequence[int]) -> FloatArray:
    """Return a value of the images at some positions of the later moment, after that of the earlier one: `(n, 2)`."""
    values = np.stack([column(records, name) for records in shared(first, then, positions)], axis=1)
    return values[~np.isnan(values).any(axis=1)]


def compared(values: FloatArray) -> PairedFigure | None:
    """Compare values before and after, `(n, 2)`; `None` if there are none."""
    return bootstrapped_figure(values) if len(values) else None


def prompt_rows(facts: RunFacts) -> list[PromptRow]:
    """Return a row for each prompt, those whose reward rose least first."""
    rows = [row for name, moments in facts.moments.items() for row in _rows(facts, name, *ends(facts, moments))]
    return sorted(rows, key=lambda row: np.inf if row.reward is None else row.reward.difference)[:MAX_ROWS]


def _rows(facts: RunFacts, dataset: str, first: Moment, then: Moment) -> Iterator[PromptRow]:
    places: dict[str, list[int]] = {}
    for (*_, prompt), index in then.positions.items():
        places.setdefault(prompt, []).append(index)
    for prompt, indices in places.items():
        reward, *held_out = (compared(pairs(first, then, name, indices)) for name in ("reward", *facts.held_out[:1]))
        scores = [then.records[index].get(f"{DETECTORS}{name}") for name in facts.detectors for index in indices]
        detection = max((score for score in scores if score is not None), default=None)
        seen = prompt in facts.trained_prompts
        yield PromptRow(dataset, prompt, seen, reward, held_out[0] if held_out else None, detection)


def generalisation(facts: RunFacts) -> dict[str, dict[str, PairedFigure]]:
    """Return the change of each reward and detector by dataset, prompts that were trained on and others apart, then by column."""
    columns = ["reward", *facts.held_out, *(f"{DETECTORS}{name}" for name in facts.detectors)]
    table: dict[str, dict[str, PairedFigure]] = {}
    for dataset, moments in facts.moments.items():
        first, then = ends(facts, moments)
        for seen, title in ((True, "trained on"), (False, "never trained on")):
            positions = [i for (*_, prompt), i in then.positions.items() if (prompt in facts.trained_prompts) == seen]
            changes = {name: compared(pairs(first, then, name, positions)) for name in columns}
            known = {name: change for name, change in changes.items() if change is not None}
            if known:
                table[f"{dataset}, prompts that were {title}"] = known
    return table


def cost(facts: RunFacts) -> dict[str, float]:
    """Return the seconds of each part of the run, as far as they are logged."""
    parts = {title: sum(log.get(key, 0.0) for log in facts.logs) for key, title in SECONDS.items()}
    return {title: seconds for title, seconds in parts.items() if seconds}


def images_per_second(facts: RunFacts) -> float | None:
    """Return the median number of images that were trained on in a second; `None` if it is not logged."""
    speeds = [log["images_per_second"] for log in facts.logs if "images_per_second" in log]
    return float(np.median(speeds)) if speeds else None
