"""The contract of rewards: the values that they may return and log. No failure ever becomes a number."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, final, runtime_checkable

from .errors import RewardError

#: Fields of an image's record, whose names `log_extra` may not take.
RECORD_FIELDS = ("rollout", "rollouts", "updates", "seed", "prompt", "reward")


LogExtra: TypeAlias = Callable[[str, Sequence[Any]], None]  #: type of a reward's argument `log_extra`


def log_nothing(name: str, values: Sequence[Any]) -> None:
    """Do nothing: the default of `log_extra` for rewards that are also called without the trainer."""


@runtime_checkable
class Array(Protocol):
    """The common part of torch tensors, numpy arrays and numpy numbers, so that neither package has to be imported."""

    @property
    def shape(self) -> Sequence[int]:
        """Length of each dimension."""
        ...

    def tolist(self) -> Any:
        """Return Python numbers, in lists as deep as there are dimensions."""
        ...


def check_rewards(name: str, returned: Any, prompts: Sequence[str], kind: str = "Reward") -> list[float]:
    """
    Return the rewards as floats, NaN for `None`.

    Parameters:
        name (`str`):
            The reward's name, for messages.
        returned (`Any`):
            The value that the reward returned.
        prompts (`Sequence[str]` of length B):
            Prompt of each image.
        kind (`str`, *optional*, defaults to `"Reward"`):
            `"Reward"` or `"Detector"`, for messages.

    Raises:
        [`RewardError`]: the reward broke its contract. No failure ever becomes a number.
    """
    if isinstance(returned, Array):
        if len(returned.shape) != 1:
            raise RewardError(
                f"{kind} {name!r} returned shape {tuple(returned.shape)}; expected ({len(prompts)},), one for each image."
            )
        returned = returned.tolist()
    if not isinstance(returned, list | tuple):
        raise RewardError(
            f"{kind} {name!r} returned a {type(returned).__name__}; expected a list of {len(prompts)} floats (None "
            "where there is none) or a tensor of that length."
        )
    if len(returned) != len(prompts):
        raise RewardError(
            f"{kind} {name!r} returned {len(returned)} value(s) for {len(prompts)} images; it must return one for each."
        )
    return [_check_value(f"{kind} {name!r}", value, prompt) for value, prompt in zip(returned, prompts, strict=True)]


def check_detections(name: str, returned: Any, prompts: Sequence[str]) -> list[float]:
    """
    Return a detector's values as floats in [0, 1], NaN for `None`.

    Raises:
        [`RewardError`]: the detector broke its contract: that of a reward, and the range.
    """
    values = check_rewards(name, returned, prompts, "Detector")
    for value, prompt in zip(values, prompts, strict=True):
        if value < 0 or value > 1:
            raise RewardError(
                f"Detector {name!r} returned {value} for prompt {prompt!r}; expected how sure it is, in [0, 1], or None."
            )
    return values


def _check_value(whose: str, value: Any, prompt: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, Array) and len(value.shape) == 0:
        value = value.tolist()
    if not isinstance(value, numbers.Real):
        raise RewardError(
            f"{whose} returned {value!r} ({type(value).__name__}) for prompt {prompt!r}; expected a float or None."
        )
    try:
        number = float(value)
    except OverflowError:  # an integer that is too large for a float
        number = math.inf
    if not math.isfinite(number):
        raise RewardError(
            f"{whose} returned {number} for prompt {prompt!r}. Return None where there is none; numbers must be finite."
        )
    return number


@final
class RewardLog:
    """
    Collects the values of `log_metric` and `log_extra` during one batch.

    Parameters:
        num_images (`int`):
            B.
    """

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images
        self.metrics: dict[str, float] = {}  #: numbers about the batch, by name
        self.extras: dict[str, list[Any]] = {}  #: B values each, by name

    def metric(self, name: str, value: float) -> None:
        """Record one number about the batch; rewards receive this as `log_metric`."""
        self.metrics[name] = float(value)

    def extra(self, name: str, values: Sequence[Any]) -> None:
        """
        Record one value for each image; rewards receive this as `log_extra`.

        Raises:
            [`RewardError`]: there are not B values, or the name is taken.
        """
        if len(values) != self.num_images:
            raise RewardError(
                f"log_extra({name!r}) got {len(values)} value(s) for {self.num_images} images; give one for each."
            )
        if name in RECORD_FIELDS or name in self.extras:
            raise RewardError(
                f"log_extra({name!r}): this name is taken in the records of images. Choose one that starts with your reward's."
            )
        self.extras[name] = list(values)
