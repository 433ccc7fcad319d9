"""The one door to a run's folder: where each file lies, and what it holds. Needs neither torch nor the trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..types import FloatArray
from .atomic import replacing
from .manifest import checkpoints, newest_checkpoint, newest_first

Record = Mapping[str, Any]  #: what is written of one image


@dataclass(frozen=True)
class SampleSheet:
    """
    The fixed prompts and seeds as they were drawn at one moment of a run.

    Parameters:
        updates (`int`):
            Optimizer updates before.
        records (`list[dict]` of length B):
            One record for each image: `updates`, `rollouts` (trained on so far), `seed`, `prompt`, `reward`, `rewards/{name}`.
        files (`list[Path]` of length B):
            The pictures.
    """

    updates: int
    records: list[dict[str, Any]]
    files: list[Path]

    @property
    def rewards(self) -> FloatArray:
        """The reward of each image `(B,)`; NaN for none."""
        return np.array([record["reward"] for record in self.records], np.float64)


@dataclass(frozen=True)
class RunFolder:
    """
    What a run wrote, for everything that reads it later.

    Parameters:
        path (`Path`):
            The run's `output_dir`.
    """

    path: Path

    @property
    def setup_file(self) -> Path:
        """What made the run."""
        return self.path / "run.json"

    def rollout_file(self, index: int) -> Path:
        """The records of one rollout's images."""
        return self.path / "rollouts" / f"rollout-{index:05d}.parquet"

    def pictures_of(self, updates: int) -> Path:
        """The folder with the pictures of the fixed prompts after some updates."""
        return self.path / "samples" / f"update-{updates:05d}"

    def sample_file(self, updates: int) -> Path:
        """The records of these pictures."""
        return self.pictures_of(updates).with_suffix(".parquet")

    @property
    def comparison_file(self) -> Path:
        """The sheet of the fixed prompts before and after training."""
        return self.path / "samples" / "before_after.png"

    @property
    def curve_file(self) -> Path:
        """The reward curve."""
        return self.path / "reward_curve.png"

    def setups(self) -> list[dict[str, Any]]:
        """
        Return what the run was made with: first what it began with, then what it was resumed with, each with `from_update`.

        Raises:
            `FileNotFoundError`: the run has not begun.
        """
        return list(json.loads(self.setup_file.read_text())["runs"])

    def rollouts(self) -> list[int]:
        """Return the indices of the rollouts that are recorded."""
        return sorted(int(file.stem.removeprefix("rollout-")) for file in self.path.glob("rollouts/rollout-*.parquet"))

    def records(self, index: int | None = None) -> list[dict[str, Any]]:
        """Return what was recorded of each image of the rollout with this index, or of all rollouts."""
        indices = self.rollouts() if index is None else [index]
        return [record for i in indices for record in pq.read_table(self.rollout_file(i)).to_pylist()]

    def rewards(self) -> dict[int, FloatArray]:
        """Return the rewards of each rollout by its index, without missing ones."""
        tables = {index: pq.read_table(self.rollout_file(index), columns=["reward"]) for index in self.rollouts()}
        return {index: table["reward"].drop_null().to_numpy() for index, table in tables.items()}

    def samples(self) -> list[SampleSheet]:
        """Return the fixed prompts as they were drawn through training, the earliest first."""
        numbers = sorted(int(file.stem.removeprefix("update-")) for file in self.path.glob("samples/update-*.parquet"))
        return [
            SampleSheet(
                updates, pq.read_table(self.sample_file(updates)).to_pylist(), picture_files(self.pictures_of(updates))
            )
            for updates in numbers
        ]

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, whole or not, by their number of updates."""
        return checkpoints(self.path)

    def newest(self) -> Path | None:
        """Return the checkpoint that was written last and is whole."""
        return newest_checkpoint(self.path)

    def logs(self) -> list[dict[str, Any]]:
        """Return what was logged until the newest checkpoint."""
        files = [folder / "trainer_state.json" for folder in newest_first(self.path)]
        state = next((file for file in files if file.is_file()), None)
        return [] if state is None else list(json.loads(state.read_text())["log_history"])


def picture_files(folder: Path) -> list[Path]:
    """Return the pictures in a folder that are named by number, in the order of their numbers: 100 comes after 99."""
    return sorted(folder.glob("*.png"), key=lambda file: int(file.stem))


def write_records(file: Path, records: Sequence[Record]) -> None:
    """Write the records of images as Parquet; `datasets.load_dataset("parquet", data_dir=...)` reads a folder of them."""
    names = dict.fromkeys(name for record in records for name in record)  # some processes may have logged more
    with replacing(file) as place:
        pq.write_table(pa.table({name: [record.get(name) for record in records] for name in names}), place)
