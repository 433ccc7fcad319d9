"""What the rules of a reproduction compare: numbers that were measured, each missing until it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Change:
    """
    A reward before and after training, image by image.

    Parameters:
        before, after (`float`):
            Mean rewards.
        low, high (`float`, *optional*):
            95 % interval of the mean difference; `None` for a single pair.
        n (`int`):
            Number of pairs.
        spread (`float`):
            Standard deviation of the rewards before training.
    """

    before: float
    after: float
    low: float | None
    high: float | None
    n: int
    spread: float


@dataclass(frozen=True)
class Reload:
    """
    The run's last pictures, drawn again by a stock pipeline that loaded the saved adapter.

    Parameters:
        n (`int`):
            Number of pictures.
        differing (`int`):
            Number of pictures of which a pixel differs.
        error, change (`float`):
            Mean difference of their pixels, from 0 to 255, from the run's last pictures; and of these from its first ones.
    """

    n: int
    differing: int
    error: float
    change: float


@dataclass(frozen=True)
class Evidence:
    """
    Everything that the rules compare.

    Parameters:
        precision (`str`):
            `"float32"`, `"bfloat16"` or `"float16"`.
        clip_range (`float`):
            The run's clip range, beyond which nothing is learned.
        updates, planned_updates (`int`):
            Optimizer updates that were made, and those of the whole run.
        ratio_error (`float`, *optional*):
            Largest |ratio - 1| of a denoising step at the first update, where no weight has changed.
        replay_error (`float`, *optional*):
            Largest |ratio - 1| of a step that was replayed as it was sampled, before the run.
        fixed ([`Change`], *optional*):
            The trained reward on the same prompts and seeds.
        unseen ([`Change`], *optional*):
            The same on all prompts that were not trained on.
        reload ([`Reload`], *optional*):
            The adapter in a stock pipeline.
    """

    precision: str
    clip_range: float
    updates: int
    planned_updates: int
    ratio_error: float | None = None
    replay_error: float | None = None
    fixed: Change | None = None
    unseen: Change | None = None
    reload: Reload | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Evidence:
        """Return the evidence that a `reproduction.json` holds."""
        nested = {"fixed": Change, "unseen": Change, "reload": Reload}
        found = {item.name: values[item.name] for item in fields(cls)}
        made = {name: None if found[name] is None else kind(**found[name]) for name, kind in nested.items()}
        return cls(**{**found, **made})
