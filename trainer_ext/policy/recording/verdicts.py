"""Comparisons whose results are asked for together, because each question makes the host wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch

Condition: TypeAlias = bool | torch.Tensor  #: known at once, or of shape `()` on a device


def conditions_of_equality(first: Any, second: Any) -> Iterator[Condition]:
    """Yield the conditions under which two arguments are equal, bit for bit."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        if first is not second:
            same_shape = first.shape == second.shape
            yield (first == second).all() if same_shape else False
    elif type(first) is not type(second):
        yield False
    elif isinstance(first, list | tuple):
        yield len(first) == len(second)
        for pair in zip(first, second, strict=False):
            yield from conditions_of_equality(*pair)
    else:
        yield bool(first == second)


def is_same(first: Any, second: Any) -> bool:
    """Return whether two arguments are equal, bit for bit."""
    return all(map(bool, conditions_of_equality(first, second)))


class Verdicts:
    """Conditions of a run, each with the error that is raised if it does not hold."""

    def __init__(self) -> None:
        self._pending: list[tuple[torch.Tensor, Callable[[], Exception]]] = []

    def expect(self, conditions: Iterable[Condition], error: Callable[[], Exception]) -> None:
        """
        Add conditions. One that is known at once, and does not hold, raises at once, or an earlier one does in its place.

        Args:
            conditions (`Iterable[bool | torch.Tensor]`):
                Bools, or bool tensors of shape `()`.
            error (`Callable[[], Exception]`):
                Makes the error.
        """
        for condition in conditions:
            if isinstance(condition, torch.Tensor):
                self._pending.append((condition, error))
            elif not condition:
                self.judge()
                raise error()

    def judge(self) -> None:
        """Raise the error of the first condition that does not hold, and forget all of them."""
        pending, self._pending = self._pending, []
        if pending:
            hold = torch.stack([condition for condition, _ in pending]).tolist()
            for holds, (_, error) in zip(hold, pending, strict=True):
                if not holds:
                    raise error()

    def forget(self) -> None:
        """Forget all conditions: the run was given up for another reason."""
        self._pending = []
