"""Values that plugins hand over, turned into plain numbers, texts and lists."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

LARGEST = (
    3.4028234663852886e38  #: magnitude of rewards and metrics, so that no mean or sum of them overflows: float32's
)
LARGEST_INTEGER = 2**53  #: up to which every integer is a float

NOTHING = "nothing"  #: kind of `None`, which goes with every other kind
LIST_OF = "list of "


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


def finite_number(value: Any, largest: float = LARGEST) -> float:
    """
    Return a number, also one in an array without dimensions, as a float.

    Raises:
        `TypeError`: it is no number.
        `ValueError`: it is not finite, or its magnitude is more than `largest`.
    """
    if isinstance(value, Array) and len(value.shape) == 0:
        value = value.tolist()
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{shown(value)} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:  # an integer or a fraction that is too large for a float
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{number}")
    if abs(number) > largest:
        raise ValueError(f"{number}, which is more than {largest:.2g} in magnitude")
    return number


def plain(value: Any) -> Any:
    """
    Return a value for a record: `None`, a float, a text, or a list of these.

    Raises:
        `TypeError`, `ValueError`: it is something else; the message describes it.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Array):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, numbers.Integral) and abs(int(value)) > LARGEST_INTEGER:
        raise ValueError(f"{shown(value)}, an integer of more than 53 bits (log it as a text)")
    return finite_number(value, math.inf)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{shown(value)}, which is no valid Unicode") from error
    return str.__str__(value)


def kind_of(value: Any) -> str:
    """
    Return the kind of a plain value: `nothing`, `number`, `text` or `list of ...`.

    Raises:
        `ValueError`: a list has items of several kinds.
    """
    if value is None:
        return NOTHING
    if isinstance(value, list):
        return LIST_OF + common_kind(map(kind_of, value))
    return "text" if isinstance(value, str) else "number"


def common_kind(kinds: Iterable[str]) -> str:
    """
    Return the kind of values of several kinds.

    Raises:
        `ValueError`: the kinds do not go together.
    """
    common = NOTHING
    for kind in kinds:
        common = _merged(common, kind)
    return common


def _merged(first: str, second: str) -> str:
    if first == second or second == NOTHING:
        return first
    if first == NOTHING:
        return second
    if first.startswith(LIST_OF) and second.startswith(LIST_OF):
        return LIST_OF + _merged(first.removeprefix(LIST_OF), second.removeprefix(LIST_OF))
    raise ValueError(f"both a {first} and a {second}")


def shown(value: Any) -> str:
    """Return a short text for a message, also for values whose `repr` raises an error."""
    return reprlib.repr(value)
