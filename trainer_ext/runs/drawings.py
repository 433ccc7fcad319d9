"""What a run drew of the same prompts and seeds at one moment: the fixed samples, or an evaluation. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..types import FloatArray
from .records import numbered


@dataclass(frozen=True)
class SampleSheet:
    """
    The pictures of the fixed prompts and seeds at one moment of a run.

    Parameters:
        updates (`int`):
            Optimizer updates before this moment.
        records (`list[dict]` of length B):
            One record for each image: `updates`, `rollouts` (trained on so far), `seed`, `prompt`, `reward`, `rewards/{name}`.
        files (`list[Path | None]` of length B):
            The picture of each record; `None` where it is missing.
    """

    updates: int
    records: list[dict[str, Any]]
    files: list[Path | None]

    @property
    def rewards(self) -> FloatArray:
        """The reward of each image `(B,)`; NaN where there is none."""
        return np.array([record["reward"] for record in self.records], np.float64)

    @property
    def is_complete(self) -> bool:
        """Whether there are records, and a picture of each."""
        return bool(self.records) and None not in self.files


@dataclass(frozen=True)
class Evaluation:
    """
    An evaluation of a dataset at one moment of a run.

    Parameters:
        updates (`int`):
            Optimizer updates before this moment; 0 for the model before training.
        records (`list[dict]` of length B):
            One record for each image, in the order of the dataset's rows: that of a [`SampleSheet`] with the image's `row`,
            held-out rewards, detectors, `kl` in nats an image, `diversity` and `pixels/{name}`; None where not measured.
        files (`list[Path | None]` of length B):
            The picture of each record; `None` where it is missing.
    """

    updates: int
    records: list[dict[str, Any]]
    files: list[Path | None]

    @classmethod
    def joined(cls, parts: Sequence[Evaluation]) -> Evaluation:
        """Return the evaluations of several datasets at one moment as that of one, whose rows are (dataset, row)."""
        records = [
            {**record, "row": (index, record["row"])} for index, part in enumerate(parts) for record in part.records
        ]
        return cls(parts[0].updates, records, [file for part in parts for file in part.files])


def pictures_of_records(folder: Path, suffix: str, number: int) -> list[Path | None]:
    """Return the picture of each of the first `number` records, which is named by the record's position."""
    pictures = numbered(folder, "", suffix)  # there may be others, of an earlier, longer dataset
    return [pictures.get(position) for position in range(number)]
