"""The options of `ddpo reproduce`, and the run that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError
from ...options import described, option
from ...reproduction.planning import BUDGETS, CARDS_GB, TASKS
from ...shipped import EMBEDDED
from ...values import CheckedOptions

#: Options that change nothing that is measured, and may name what is private.
UNTOLD = {
    "output_dir",
    "resume_from_checkpoint",
    "disable_tqdm",
    "report_to",
    "hub_model_id",
    "push_to_hub",
    "hub_token",
}
OWNED = ("preset", "config", "max_steps", "full_finetuning")  #: options of `ddpo train` that the task decides


@described
@dataclass
class ReproduceOptions(CheckedOptions):
    """Options of `ddpo reproduce` itself: what to reproduce, and how much of it."""

    task: str | None = option(None, f"The task: {', '.join(TASKS)}.")
    model: str | None = option(
        None, "Hub id or folder of a diffusers pipeline, or 'embedded'; by default that of the task's preset."
    )
    budget: str = option(
        "full",
        f"How long it may take: {', '.join(BUDGETS)}. A shorter run makes fewer rollouts, and '1h' smaller ones.",
    )
    memory: int | None = option(
        None,
        f"Memory in GB of the card for which options are chosen: {', '.join(map(str, CARDS_GB))}; by default, of this one.",
    )
    yes: bool = option(False, "Start long work and downloads without asking.")


def check_options(options: ReproduceOptions, others: Sequence[str]) -> None:
    """
    Check the options that belong to `ddpo reproduce`.

    Raises:
        [`ConfigError`]: one has no such value, or another option is given that the task decides.
    """
    if options.task is None:
        raise ConfigError(f"No task is named: ddpo reproduce {TASKS[0]}. There are: {', '.join(TASKS)}.")
    allowed: dict[str, Sequence[Any]] = {"task": TASKS, "budget": list(BUDGETS), "memory": [None, *CARDS_GB]}
    for name, values in allowed.items():
        value = vars(options)[name]
        if value not in values:
            known = ", ".join(str(each) for each in values if each is not None)
            raise ConfigError(f"{name} is {value!r}; it must be one of {known}.")
    if options.memory is not None and options.model == EMBEDDED:
        raise ConfigError("--memory chooses options for Stable Diffusion's size; the embedded model fits every card.")
    given = {_name_of(word) for word in others if word.startswith("--")}
    if decided := sorted(given & {*OWNED, "model_name_or_path"}):
        raise ConfigError(
            f"--{decided[0]} is decided by the task and its --model, --budget and --memory; ddpo train takes it."
        )


def told(others: Sequence[str]) -> list[str]:
    """Return the options that are named in the result, without those that change nothing that is measured."""
    kept, keeps = [], True
    for word in others:
        keeps = _name_of(word) not in UNTOLD if word.startswith("--") else keeps
        kept += [word] * keeps
    return kept


def _name_of(word: str) -> str:
    return word.partition("=")[0].lstrip("-").replace("-", "_")
