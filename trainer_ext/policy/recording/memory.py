"""Holds the denoising runs of a rollout: each batch is written to its place at once, so that there is no second copy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from .conditioning import CallRecord, Conditioning, fit
from .trajectory import FinalLatents, Trajectory

Runs = TypeVar("Runs", Trajectory, FinalLatents)
Allocate = Callable[..., torch.Tensor]


class RolloutMemory(Generic[Runs]):
    """
    Space for the runs of B images, which are added batch by batch.

    Args:
        num_images (`int`):
            B.
        folder (`Path`, *optional*):
            Where files hold the tensors, which are mapped into memory and have no names: the system writes what is not in use to
            the disk, and removes a file with its tensor, or the process. Host memory by default.
    """

    def __init__(self, num_images: int, folder: Path | None = None):
        self.num_images = num_images
        self.allocate = torch.empty if folder is None else partial(on_disk, folder)
        self._rows: dict[str, GrowingTensor] = {}
        self._groups: list[GroupMemory] = []
        self._group_of: list[torch.Tensor] = []
        self._row_of: list[torch.Tensor] = []
        self._last: Runs | None = None

    def add(self, runs: Runs) -> None:
        """
        Write the runs of the next images, which are in host memory.

        Raises:
            `OSError`: there is no space on the disk.
        """
        if not self._rows:
            self._rows = {name: GrowingTensor(self.num_images, self.allocate) for name in runs.rows()}
        for name, value in runs.rows().items():
            self._rows[name].add(value)
        given = runs.conditioning
        groups, firsts = zip(*(self._enter(calls, len(runs)) for calls in given.groups), strict=True)
        self._group_of.append(torch.tensor(groups)[given.group_of])
        self._row_of.append(torch.tensor(firsts)[given.group_of] + given.row_of)
        self._last = runs

    def _enter(self, calls: Sequence[CallRecord], num_images: int) -> tuple[int, int]:
        """Add records to the first group that they fit in, or to a new one; return it, and their first row there."""
        index = next((index for index, group in enumerate(self._groups) if group.fits(calls)), len(self._groups))
        if index == len(self._groups):
            expected = -(-self.num_images * len(calls[0]) // num_images)
            self._groups.append(GroupMemory(calls, expected, self.allocate))
        return index, self._groups[index].add(calls)

    def whole(self) -> Runs:
        """Return the runs of all images."""
        added = sum(map(len, self._row_of))
        if added != self.num_images or self._last is None:
            raise ValueError(f"{added} of {self.num_images} images were added")
        groups = tuple(group.records() for group in self._groups)
        conditioning = Conditioning(groups, torch.cat(self._group_of), torch.cat(self._row_of))
        return self._last.holding({name: rows.whole() for name, rows in self._rows.items()}, conditioning)


class GroupMemory:
    """
    The denoiser calls of images that fit in one batch.

    Args:
        calls (`Sequence[CallRecord]`):
            The first records.
        expected (`int`):
            Number of rows to make space for.
        allocate (`Callable`):
            Makes an empty tensor of a shape and `dtype`.
    """

    def __init__(self, calls: Sequence[CallRecord], expected: int, allocate: Allocate):
        self.first = tuple(call.row(0) for call in calls)  # all rows would stay in memory
        self.columns = [
            {name: _column(value, expected, allocate) for name, value in call.per_image.items()} for call in calls
        ]
        self.num_rows = 0

    def fits(self, calls: Sequence[CallRecord]) -> bool:
        """Return whether records can be rows of this batch."""
        return all(fit(*pair) for pair in zip(self.first, calls, strict=True))

    def add(self, calls: Sequence[CallRecord]) -> int:
        """Write records; return their first row."""
        for columns, call in zip(self.columns, calls, strict=True):
            for name, column in columns.items():
                column.add(call.per_image[name])
        first, self.num_rows = self.num_rows, self.num_rows + len(calls[0])
        return first

    def records(self) -> tuple[CallRecord, ...]:
        """Return all of them."""
        return tuple(
            replace(
                first, per_image={name: column.whole() for name, column in columns.items()}, num_images=self.num_rows
            )
            for first, columns in zip(self.first, self.columns, strict=True)
        )


class GrowingTensor:
    """
    A tensor to which rows are added.

    Args:
        expected (`int`):
            Number of rows to make space for; if there are others in the end, they are copied once.
        allocate (`Callable`):
            Makes an empty tensor of a shape and `dtype`.
    """

    def __init__(self, expected: int, allocate: Allocate):
        self.expected, self.allocate = expected, allocate
        self.tensor: torch.Tensor | None = None
        self.num_rows = 0

    def add(self, rows: torch.Tensor) -> None:
        """Write rows behind those that are there."""
        end = self.num_rows + len(rows)
        if self.tensor is None or end > len(self.tensor):
            self._move(rows, max(end, self.expected))
        assert self.tensor is not None
        self.tensor[self.num_rows : end] = rows
        self.num_rows = end

    def whole(self) -> torch.Tensor:
        """Return all rows, in a storage without others: a checkpoint would have them too."""
        assert self.tensor is not None
        if self.num_rows < len(self.tensor):
            self._move(self.tensor, self.num_rows)
        return self.tensor

    def _move(self, like: torch.Tensor, number: int) -> None:
        before = self.tensor
        self.tensor = self.allocate((number, *like.shape[1:]), dtype=like.dtype)
        if before is not None:
            self.tensor[: self.num_rows] = before[: self.num_rows]


class GrowingList:
    """Rows that are no tensors, or `None` where there are none."""

    def __init__(self, value: list[Any] | None):
        self.rows: list[Any] | None = None if value is None else []

    def add(self, rows: list[Any] | None) -> None:
        """Append rows."""
        if self.rows is not None and rows is not None:
            self.rows += rows

    def whole(self) -> list[Any] | None:
        """Return all rows."""
        return self.rows


def _column(value: Any, expected: int, allocate: Allocate) -> GrowingTensor | GrowingList:
    return GrowingTensor(expected, allocate) if isinstance(value, torch.Tensor) else GrowingList(value)


def joined(parts: Sequence[Runs]) -> Runs:
    """Join the runs of several batches of one policy, image by image."""
    memory: RolloutMemory[Runs] = RolloutMemory(sum(len(part) for part in parts))
    for part in parts:
        memory.add(part)
    return memory.whole()


def on_disk(folder: Path, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """
    Return an empty tensor in a file without a name.

    Raises:
        `OSError`: there is no space on the disk; found out here, because later the system could only kill the process.
    """
    elements = torch.Size(shape).numel()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".rollout-") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, elements * dtype.itemsize))
        return torch.from_file(file.name, shared=True, size=elements, dtype=dtype).view(*shape)
