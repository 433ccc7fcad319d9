"""The one door to a run's folder: the place and content of each file. Needs neither torch nor the trainer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..file_names import as_file_name, from_file_name
from ..types import FloatArray
from .drawings import Evaluation, SampleSheet, pictures_of_records
from .final_weights import newest_weights
from .manifest import MANIFEST, checkpoints, newest_checkpoint, newest_first
from .records import numbered, read_records, remove_from

SINGLE_DATASET = "eval"  #: name of the dataset in a run whose evaluation has one


@dataclass(frozen=True)
class RunFolder:
    """
    The files of a run, for everything that reads them later.

    Parameters:
        path (`Path`):
            The run's `output_dir`.
    """

    path: Path

    @property
    def setup_file(self) -> Path:
        """The setups of the run; see [`RunSetup`]."""
        return self.path / "run.json"

    def rollout_file(self, index: int) -> Path:
        """The records of one rollout's images."""
        return self.path / "rollouts" / f"rollout-{index:05d}.parquet"

    def kept_images(self, index: int) -> Path:
        """The folder with the images of one rollout that were kept, by their number in the rollout."""
        return self.path / "rollouts" / "images" / f"rollout-{index:05d}"

    def pictures_of(self, updates: int) -> Path:
        """The folder with the pictures of the fixed prompts after some updates."""
        return self.path / "samples" / f"update-{updates:05d}"

    def sample_file(self, updates: int) -> Path:
        """The records of these pictures."""
        return self.pictures_of(updates).with_suffix(".parquet")

    def default_sample_file(self, updates: int) -> Path:
        """The records of pictures of the same prompts and seeds with the base's own scheduler, steps and guidance."""
        return self.path / "samples" / f"defaults-{updates:05d}.parquet"

    def step_file(self, updates: int) -> Path:
        """The figures of denoising steps that were logged after some updates: ratio, KL and clipped share of each step."""
        return self.path / "steps" / f"update-{updates:05d}.parquet"

    @property
    def evaluation_folder(self) -> Path:
        """The folder with all evaluations."""
        return self.path / "evaluations"

    def evaluation_pictures(self, dataset: str, updates: int) -> Path:
        """The folder with the pictures of an evaluation after some updates, by the number of their record."""
        return self.evaluation_folder / as_file_name(dataset) / f"update-{updates:05d}"

    def evaluation_file(self, dataset: str, updates: int) -> Path:
        """The records of an evaluation's images."""
        return self.evaluation_pictures(dataset, updates).with_suffix(".parquet")

    def forget_after(self, updates: int, rollouts: int) -> None:
        """
        Remove the records and pictures of another branch of the run, whose checkpoints are not gone on from.

        Args:
            updates (`int`):
                What was drawn, measured or evaluated after more updates is removed.
            rollouts (`int`):
                Number of rollouts to keep.
        """
        for folder in (self.path / "samples", self.path / "steps", *self.evaluation_folder.glob("*")):
            remove_from(folder, "update-", updates + 1)
        remove_from(self.path / "samples", "defaults-", updates + 1)
        for folder in (self.path / "rollouts", self.path / "rollouts" / "images"):
            remove_from(folder, "rollout-", rollouts)

    @property
    def comparison_file(self) -> Path:
        """The sheet of the fixed prompts before and after training."""
        return self.path / "samples" / "before_after.png"

    @property
    def strip_file(self) -> Path:
        """The fixed prompts through training, on one picture."""
        return self.path / "samples" / "snapshots.png"

    @property
    def curve_file(self) -> Path:
        """The reward curve."""
        return self.path / "reward_curve.png"

    def setups(self) -> list[dict[str, Any]]:
        """
        Return the setups of the run, each with `from_update`: the one that it began with, then those that it resumed with.

        Raises:
            `FileNotFoundError`: the run has not begun.
        """
        return list(json.loads(self.setup_file.read_text(encoding="utf-8"))["runs"])

    def rollouts(self) -> list[int]:
        """Return the indices of the rollouts that are recorded."""
        return list(numbered(self.path / "rollouts", "rollout-"))

    def records(self, index: int | None = None) -> list[dict[str, Any]]:
        """Return the record of each image of the rollout with this index, or of all rollouts whose file can be read."""
        if index is not None:
            return list(pq.read_table(self.rollout_file(index)).to_pylist())
        tables = (read_records(file) for file in numbered(self.path / "rollouts", "rollout-").values())
        return [record for table in tables if table is not None for record in table.to_pylist()]

    def rewards(self) -> dict[int, FloatArray]:
        """Return the rewards of each rollout by its index, without missing ones, and without files that cannot be read."""
        files = numbered(self.path / "rollouts", "rollout-")
        tables = {index: read_records(file, ["reward"]) for index, file in files.items()}
        return {index: table["reward"].drop_null().to_numpy() for index, table in tables.items() if table is not None}

    def samples(self) -> list[SampleSheet]:
        """Return the pictures of the fixed prompts through training, the earliest first, without records that cannot be read."""
        tables = {updates: read_records(file) for updates, file in numbered(self.path / "samples", "update-").items()}
        return [
            SampleSheet(updates, table.to_pylist(), pictures_of_records(self.pictures_of(updates), ".png", len(table)))
            for updates, table in tables.items()
            if table is not None
        ]

    def default_samples(self) -> list[list[dict[str, Any]]]:
        """Return the records of the pictures with the base's own scheduler, steps and guidance: before training, and after."""
        tables = map(read_records, numbered(self.path / "samples", "defaults-").values())
        return [table.to_pylist() for table in tables if table is not None]

    def evaluations(self) -> dict[str, list[Evaluation]]:
        """
        Return the evaluations of each dataset, the earliest first, without records that cannot be read. The first is that of the
        model before training, if its `updates` is 0. A run with a single dataset calls it `"eval"`.
        """
        folders = sorted(folder for folder in self.evaluation_folder.glob("*") if folder.is_dir())
        return {from_file_name(folder.name): found for folder in folders if (found := list(_evaluations(folder)))}

    def steps(self) -> list[list[dict[str, Any]]]:
        """Return the figures of denoising steps at each log, the earliest first, without records that cannot be read."""
        tables = map(read_records, numbered(self.path / "steps", "update-").values())
        return [table.to_pylist() for table in tables if table is not None]

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, whole or not, by their number of updates."""
        return checkpoints(self.path)

    def newest(self) -> Path | None:
        """Return the checkpoint that was written last and is whole."""
        return newest_checkpoint(self.path)

    def weights(self) -> Iterator[Path]:
        """Yield the folders that may hold weights of the run, the newest first; see [`newest_weights`]."""
        return newest_weights(self.path)

    def logs(self) -> list[dict[str, Any]]:
        """Return the logs up to the newest checkpoint that was not cut short."""
        complete = (folder for folder in newest_first(self.path) if (folder / MANIFEST).is_file())
        files = (folder / "trainer_state.json" for folder in complete)
        state = next((file for file in files if file.is_file()), None)
        return [] if state is None else list(json.loads(state.read_text(encoding="utf-8"))["log_history"])


def _evaluations(folder: Path) -> Iterator[Evaluation]:
    for updates, file in numbered(folder, "update-").items():
        table = read_records(file)
        if table is not None:
            files = pictures_of_records(file.with_suffix(""), ".webp", len(table))
            yield Evaluation(updates, table.to_pylist(), files)


def picture_files(folder: Path) -> list[Path]:
    """Return the pictures in a folder that are named by number, in the order of their numbers: 100 comes after 99."""
    return list(numbered(folder, "", ".png").values())
