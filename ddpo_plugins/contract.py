"""The contract of rewards: the values that they may return and log. No failure ever becomes a number."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, final

from .errors import RewardError, describe
from .names import is_metric, record_type
from .values import NOTHING, Array, common_kind, finite_number, kind_of, plain, shown

LogExtra: TypeAlias = Callable[[str, Sequence[Any]], None]  #: type of a reward's argument `log_extra`


def log_nothing(name: str, values: Sequence[Any]) -> None:
    """Do nothing: the default of `log_extra` for rewards that are also called without the trainer."""


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
    whose = f"{kind} {name!r}"
    try:
        values = _values(whose, returned, len(prompts))
        return [_check_value(whose, value, prompt) for value, prompt in zip(values, prompts, strict=True)]
    except RewardError:
        raise
    except (Exception, SystemExit) as error:  # of what was returned: a tensor without data, an object that is no number
        raise RewardError(
            f"{whose} returned a {type(returned).__name__} that cannot be read as {len(prompts)} numbers: "
            f"{describe(error)}. {_RETURN}"
        ) from error


_RETURN = "Return a list with one float or None for each image, or a tensor of that length."


def _values(whose: str, returned: Any, count: int) -> list[Any]:
    """Return what a reward returned as a list with a value for each image."""
    if isinstance(returned, Array):
        if len(returned.shape) != 1:
            raise RewardError(
                f"{whose} returned shape {tuple(returned.shape)}; expected ({count},), one for each image. {_RETURN}"
            )
        returned = returned.tolist()
    if not isinstance(returned, list | tuple):
        raise RewardError(
            f"{whose} returned a {type(returned).__name__}; expected a list of {count} floats (None where there is none) "
            f"or a tensor of that length. {_RETURN}"
        )
    values = list(returned)  # its own `len` need not be true
    if len(values) != count:
        raise RewardError(f"{whose} returned {len(values)} value(s) for {count} images; it must return one for each.")
    return values


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
    try:
        return finite_number(value)
    except TypeError as error:
        raise RewardError(f"{whose} returned {error} for prompt {prompt!r}; expected a float or None.") from error
    except ValueError as error:
        raise RewardError(
            f"{whose} returned {error} for prompt {prompt!r}. Return None where there is none; numbers must be finite, and "
            "fit in a float32."
        ) from error


@final
class RewardLog:
    """
    Collects the values of `log_metric` and `log_extra` during one batch.

    Parameters:
        num_images (`int`):
            B.
        kinds (`dict[str, str]`, *optional*):
            Kind of each column of `log_extra` in earlier batches, to which this batch adds its own.
    """

    def __init__(self, num_images: int, kinds: dict[str, str] | None = None) -> None:
        self.num_images = num_images
        self.metrics: dict[str, float] = {}  #: numbers about the batch, by name
        self.extras: dict[str, list[Any]] = {}  #: B values each, by name
        self._owners: dict[str, str] = {}
        self._kinds = {} if kinds is None else kinds
        self._positions: Sequence[int] = range(num_images)

    def part(self, positions: Sequence[int]) -> RewardLog:
        """Return the same log for a call that sees only the images at these positions. The others' values are `None`."""
        part = copy.copy(self)
        part._positions = positions
        return part

    def arguments(self, owner: str) -> Mapping[str, Callable[[str, Any], None]]:
        """Return the arguments `log_metric` and `log_extra` of one reward or detector; `owner` names it in messages."""
        return {"log_metric": partial(self._metric, owner), "log_extra": partial(self._extra, owner)}

    def _metric(self, owner: str, name: str, value: Any) -> None:
        """
        Record one number about the batch; rewards receive this as `log_metric`.

        Raises:
            [`RewardError`]: it is no finite number, or the name is taken.
        """
        call = f"log_metric({shown(name)})"
        _check_name(call, name)
        if is_metric(name):
            raise RewardError(f"{call}: the trainer logs a metric of this name itself. {_OWN_NAME}")
        if self._owners.setdefault(name, owner) != owner:
            raise RewardError(f"{call}: this name is taken by {self._owners[name]}. {_OWN_NAME}")
        try:
            self.metrics[name] = finite_number(value)
        except (TypeError, ValueError) as error:
            raise RewardError(f"{call} got {error}; give one finite number.") from error

    def _extra(self, owner: str, name: str, values: Any) -> None:
        """
        Record one value for each image; rewards receive this as `log_extra`.

        Raises:
            [`RewardError`]: there are not B values, they are not numbers, texts or lists of one kind, or the name is taken.
        """
        call = f"log_extra({shown(name)})"
        _check_name(call, name)
        if record_type(name) is not None or name in self.extras:
            raise RewardError(f"{call}: this name is taken in the records of images. {_OWN_NAME}")
        items = self._one_each(call, values)
        kinds = [self._kinds.get(name, NOTHING)]
        for image, item in enumerate(items):
            try:
                items[image] = plain(item)
                kinds = [common_kind([*kinds, kind_of(items[image])])]
            except (Exception, SystemExit) as error:
                raise RewardError(f"{call} got {_why(error)} for image {image}. {_EXTRA_RULE}") from error
        self._kinds[name] = kinds[0]
        self.extras[name] = [None] * self.num_images
        for position, item in zip(self._positions, items, strict=True):
            self.extras[name][position] = item

    def _one_each(self, call: str, values: Any) -> list[Any]:
        if isinstance(values, Array):
            values = values.tolist()
        if not isinstance(values, list | tuple):
            raise RewardError(f"{call} got a {type(values).__name__}; give a list with one value for each image.")
        items = list(values)
        if len(items) != len(self._positions):
            raise RewardError(f"{call} got {len(items)} value(s) for {len(self._positions)} images; give one for each.")
        return items


_OWN_NAME = "Choose one that starts with your reward's."
_EXTRA_RULE = "All values of a column are finite numbers, or texts, or lists of these; None stands for a missing value."


def _why(error: BaseException) -> str:
    """Return the description that [`plain`] gives of a value; of other errors, also the type."""
    return str(error) if type(error) in (TypeError, ValueError) else f"what cannot be read: {describe(error)}"


def _check_name(call: str, name: Any) -> None:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise RewardError(f"{call}: a name is a text that can be printed, such as 'my_reward/area'.")
