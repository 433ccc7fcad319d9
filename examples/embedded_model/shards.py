"""Scenes on disk, drawn by worker processes: each shard is a function of its seed and its number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from .art import GENERATOR_SETS, JUDGE_SETS, load, only
from .captions import Description, World
from .scenes import Painter
from .words import ACTIVITIES, SUBJECTS, HeldOut


@dataclass(frozen=True)
class Collection:
    """
    A number of shards of one kind.

    Args:
        folder (`Path`): Where they are.
        art (`Path`): File of the icons.
        shards (`int`): How many.
        scenes_per_shard (`int`): How many scenes each holds.
        seed (`int`): Of the first shard's random numbers; collections with distant seeds share no scene.
        for_judge (`bool`): All words, all icon sets, single subjects and activities; otherwise nothing held out is
            shown, and only the generator's icon sets.
    """

    folder: Path
    art: Path
    shards: int
    scenes_per_shard: int
    seed: int
    for_judge: bool = False

    @property
    def files(self) -> list[Path]:
        """One file a shard: `images` (N, 3, 64, 64) uint8, `subjects` and `activities` (N,) int64, captions."""
        return [self.folder / f"{number:04}.safetensors" for number in range(self.shards)]


def draw(collection: Collection, workers: int) -> None:
    """Draw the shards that are not there yet, in so many processes."""
    missing = [number for number, file in enumerate(collection.files) if not file.exists()]
    collection.folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(missing), desc=f"scenes in {collection.folder.name}", unit="shard") as progress:
        for _ in _each(partial(_draw_shard, collection), missing, workers):
            progress.update()


def captions(file: Path) -> list[str]:
    """Return the captions of a shard."""
    with safe_open(file, "np") as shard:
        return json.loads(shard.metadata()["captions"])


def _each(work: Callable[[int], Path], numbers: list[int], workers: int) -> Iterator[Path]:
    if workers < 2 or len(numbers) < 2:
        yield from map(work, numbers)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, numbers)


def _draw_shard(collection: Collection, number: int) -> Path:
    rng = Random(collection.seed + number)
    painter = Painter(only(load(collection.art), GENERATOR_SETS + JUDGE_SETS * collection.for_judge))
    world = World() if collection.for_judge else World(HeldOut.read())
    scenes = [_describe(world, rng, collection.for_judge) for _ in range(collection.scenes_per_shard)]
    images = np.stack([np.asarray(painter.paint(scene, rng)) for scene in scenes])
    tensors = {
        "images": np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
        "subjects": np.array([SUBJECTS.index(scene.subject) for scene in scenes]),
        "activities": np.array([activity_label(scene.activity) for scene in scenes]),
    }
    file = collection.files[number]
    temporary = file.with_suffix(".part")
    save_file(tensors, temporary, {"captions": json.dumps([scene.caption for scene in scenes])})
    return temporary.replace(file)


def _describe(world: World, rng: Random, for_judge: bool) -> Description:
    while True:
        scene = world.describe(rng)
        if not (for_judge and (scene.companion or scene.written)):
            return scene


def activity_label(activity: str | None) -> int:
    """Return the class of an activity; 0 is "none"."""
    return 1 + ACTIVITIES.index(activity) if activity else 0
