"""Where the stages work, and what of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from . import shards
from .captions import Writing
from .deadline import Deadline
from .settings import Settings

#: Far from those of the generator's scenes, which count from 0.
JUDGE_SEED, TEST_SEED, READER_SEED, TEST_READER_SEED = 1_000_000, 2_000_000, 3_000_000, 4_000_000
SECOND_JUDGE_SEED, STRANGER_SEED, POSTER_SEED = 5_000_000, 6_000_000, 7_000_000


@dataclass(frozen=True)
class Workshop:
    """
    Where the stages work and what with.

    Args:
        folder (`Path`): Of all files that they read and write.
        settings ([`Settings`]): How much of everything.
        deadline ([`Deadline`]): When to stop.
        icon_sets (`Path`): The folder `node_modules/@iconify-json`; only `art` reads it.
        workers (`int`): Processes that draw scenes.
        start (`Path`, *optional*): A pipeline folder whose weights training begins with; its autoencoder is kept.
    """

    folder: Path
    settings: Settings
    deadline: Deadline
    icon_sets: Path
    workers: int
    start: Path | None = None

    @property
    def art_file(self) -> Path:
        """All icons: the one file to carry to a machine without a network."""
        return self.folder / "art.npz"

    def scenes(self) -> shards.Collection:
        """Return what the autoencoder and the generator are trained on."""
        writing = Writing(self.settings.sign_share, self.settings.poster_share)
        return replace(self._collection("scenes", self.settings.shards, 0, "generator"), writing=writing)

    def poster_scenes(self) -> shards.Collection:
        """Return what the adapter for posters is trained on."""
        writing = Writing(self.settings.sign_share, self.settings.adapter_poster_share)
        return replace(
            self._collection("poster-scenes", self.settings.adapter_shards, POSTER_SEED, "generator"), writing=writing
        )

    def judge_scenes(self) -> shards.Collection:
        """Return what the judge is trained on."""
        return self._collection("judge-scenes", self.settings.judge_shards, JUDGE_SEED, "judge")

    def reader_scenes(self) -> shards.Collection:
        """Return the writing that the judge that reads is trained on, besides the other's pictures."""
        return self._collection("reader-scenes", self.settings.reader_shards, READER_SEED, "reader")

    def test_scenes(self) -> shards.Collection:
        """Return pictures that nothing is trained on."""
        return self._collection("test-scenes", 1, TEST_SEED, "judge")

    def second_judge_scenes(self) -> shards.Collection:
        """Return what the second judge is trained on: all icon sets but one."""
        return self._collection("second-judge-scenes", self.settings.judge_shards, SECOND_JUDGE_SEED, "second judge")

    def stranger_scenes(self) -> shards.Collection:
        """Return pictures of the icon set that the second judge has not seen."""
        return self._collection("stranger-scenes", 1, STRANGER_SEED, "stranger")

    def test_reader_scenes(self) -> shards.Collection:
        """Return writing that nothing is trained on."""
        return self._collection("test-reader-scenes", 1, TEST_READER_SEED, "reader")

    def _collection(self, name: str, count: int, seed: int, viewer: shards.Viewer) -> shards.Collection:
        per_shard = self.settings.scenes_per_shard
        return shards.Collection(self.folder / name, self.art_file, count, per_shard, seed, viewer)
