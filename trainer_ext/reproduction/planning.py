"""The presets of a task, for a model, a card and a budget."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConfigError
from ..shipped import EMBEDDED

TASKS = ("compressibility", "incompressibility", "aesthetic", "alignment", "counting")
#: Presets of the tasks that the embedded model has.
OF_EMBEDDED = {
    "compressibility": "embedded/compressibility",
    "incompressibility": "embedded",
    "aesthetic": "embedded/aesthetic",
    "alignment": "embedded/alignment",
}
#: Hours of each budget.
BUDGETS = {"1h": 1.0, "8h": 8.0, "full": None}
CARDS_GB = (8, 16, 24, 80)  #: with a preset each in memory/
ALMOST = 0.9  #: share of a card's nominal memory that it has at least
GB = 1e9


@dataclass(frozen=True)
class Card:
    """
    What trains.

    Parameters:
        is_gpu (`bool`):
            `True` for a GPU, `False` for a machine without one.
        num_bytes (`int`):
            Memory of the card, or of the machine.
        has_bf16 (`bool`):
            `True` if its hardware has bfloat16.
    """

    is_gpu: bool
    num_bytes: int
    has_bf16: bool


def presets_for(task: str, model: str | None, budget: str, memory: int | None) -> list[str]:
    """
    Return the presets of a run; of several that set an option, the last counts.

    Raises:
        [`ConfigError`]: the embedded model has no such task.
    """
    if model != EMBEDDED:
        sizes = [] if memory is None else [f"memory/{memory}gb"]
        return [f"lora/{task}", *sizes, *([] if budget == "full" else [f"budget/{budget}"])]
    if task not in OF_EMBEDDED:
        raise ConfigError(f"The embedded model has no task {task!r}; it has {', '.join(OF_EMBEDDED)}.")
    return [OF_EMBEDDED[task]]


def memory_for(card: Card, model: str | None) -> int | None:
    """
    Return the size of card whose preset fits: the largest one that is not larger. Without a GPU, and for the embedded model,
    none is needed.

    Raises:
        [`ConfigError`]: the card is smaller than all.
    """
    if not card.is_gpu or model == EMBEDDED:
        return None
    fitting = [size for size in CARDS_GB if card.num_bytes >= ALMOST * size * GB]
    if not fitting:
        raise ConfigError(
            f"The card has {card.num_bytes / GB:.3g} GB, and the smallest variant is for {CARDS_GB[0]} GB. Give --memory "
            f"{CARDS_GB[0]} to try it, or use a larger card."
        )
    return fitting[-1]


def affordable_rollouts(budget: str, planned: int, seconds: Callable[[int], float]) -> int:
    """
    Return the rollouts that a budget pays for, at most those that the task has.

    Args:
        budget (`str`):
            The budget's name.
        planned (`int`):
            Number of rollouts that the task has.
        seconds (`Callable[[int], float]`):
            What a run of so many rollouts takes; more of them take no less.

    Raises:
        [`ConfigError`]: it does not pay for a single one.
    """
    hours = BUDGETS[budget]
    if hours is None:
        return planned
    paid = bisect_right(range(1, planned + 1), hours * 3600, key=seconds)
    if paid < 1:
        raise ConfigError(
            f"{budget} is too short on this machine: a single rollout with its evaluations and pictures takes "
            f"{seconds(1) / 3600:.3g} h. Use a larger --budget, or fewer images (--num_images_per_rollout, "
            "--num_inference_steps)."
        )
    return paid
