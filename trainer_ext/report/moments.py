"""The same prompts and seeds at several moments of a run: evaluations, or the fixed samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..runs.drawings import Evaluation, SampleSheet
from ..runs.records import Record

IDENTITY = ("seed", "prompt", "reward")  #: columns without which a record is of another program

Key = tuple[int, int, str]


@dataclass(frozen=True)
class Moment:
    """
    The same prompts and seeds at one moment of a run.

    Parameters:
        updates (`int`):
            Optimizer updates before this moment.
        records (`Sequence[Mapping]`):
            One record for each image.
        pictures (`Mapping[int, Path]`):
            Their pictures, by position in `records`; some may be missing.
    """

    updates: int
    records: Sequence[Record]
    pictures: Mapping[int, Path]

    @classmethod
    def of(cls, one: Evaluation | SampleSheet) -> Moment:
        """Return what can be shown of an evaluation, or of the fixed samples."""
        return cls(one.updates, one.records, {index: file for index, file in enumerate(one.files) if file is not None})

    @property
    def rollouts(self) -> float:
        """Rollouts that were trained on before this moment."""
        return float(self.records[0].get("rollouts") or 0.0)

    @cached_property
    def positions(self) -> Mapping[Key, int]:
        """Position of each record by what identifies its image."""
        return {key_of(record): index for index, record in enumerate(self.records)}


def key_of(record: Record) -> Key:
    """Return what identifies an image through training: its row, seed and prompt."""
    return record.get("row", 0), record["seed"], record["prompt"]


def shared(first: Moment, then: Moment, positions: Sequence[int]) -> tuple[list[Record], list[Record]]:
    """Return the records of the images that two moments have in common, of those at some positions of the later one."""
    both = [record for record in map(then.records.__getitem__, positions) if key_of(record) in first.positions]
    return [first.records[first.positions[key_of(record)]] for record in both], both


def moments_of(series: Mapping[str, Sequence[Evaluation | SampleSheet]]) -> dict[str, list[Moment]]:
    """Return what can be shown of evaluations, by dataset."""
    whole = {name: [one for one in found if _is_whole(one.records)] for name, found in series.items()}
    return {name: [Moment.of(one) for one in found] for name, found in whole.items() if found}


def _is_whole(records: Sequence[Record]) -> bool:
    """Return whether there are records, with all columns that are needed: they have the same columns."""
    return bool(records) and set(IDENTITY) <= records[0].keys()
