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
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from . import spoilt
from .art import GENERATOR_SETS, JUDGE_SETS, load, only
from .captions import Description, World, Writing
from .scenes import Painter
from .words import ACTIVITIES, NOTHING, SUBJECTS, HeldOut

Viewer = Literal["generator", "judge", "second judge", "stranger", "reader"]


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
        viewer (`str`): Of the scenes. The `"generator"` is shown nothing held out, but in writing, and only its own icon
            sets; the `"judge"` all words, all icon sets, single subjects and activities; the `"second judge"` the same
            without the icon set that only the `"stranger"` sees; the `"reader"` writing only.
        writing ([`Writing`], *optional*): How many of the generator's scenes are written.
    """

    folder: Path
    art: Path
    shards: int
    scenes_per_shard: int
    seed: int
    viewer: Viewer = "generator"
    writing: Writing | None = None

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


class _Scene(NamedTuple):
    """A picture and what is in it."""

    image: Image.Image
    subject: str
    activity: str | None
    caption: str


def _draw_shard(collection: Collection, number: int) -> Path:
    rng = Random(collection.seed + number)
    draw_scene = SOURCES[collection.viewer](collection)
    scenes = [draw_scene(rng) for _ in range(collection.scenes_per_shard)]
    images = np.stack([np.asarray(scene.image) for scene in scenes])
    tensors = {
        "images": np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
        "subjects": np.array([subject_label(scene.subject) for scene in scenes]),
        "activities": np.array([activity_label(scene.activity) for scene in scenes]),
    }
    file = collection.files[number]
    temporary = file.with_suffix(".part")
    save_file(tensors, temporary, {"captions": json.dumps([scene.caption for scene in scenes])})
    return temporary.replace(file)


def _for_generator(collection: Collection) -> Callable[[Random], _Scene]:
    world = World(HeldOut.read(), collection.writing)
    painter = Painter(only(load(collection.art), GENERATOR_SETS))
    return lambda rng: _paint(painter, world.describe(rng), rng)


def _for_judge(sets: tuple[str, ...], collection: Collection) -> Callable[[Random], _Scene]:
    art = {word: icons for word, icons in only(load(collection.art), sets).items() if icons}
    world, painter = World(), Painter(art)

    def draw_scene(rng: Random) -> _Scene:
        while (scene := world.describe(rng)).companion or scene.subject not in art:
            pass
        return _paint(painter, scene, rng)

    return draw_scene


def _for_reader(collection: Collection) -> Callable[[Random], _Scene]:
    def draw_scene(rng: Random) -> _Scene:
        image, word = spoilt.draw(rng)
        return _Scene(image, word, None, word)

    return draw_scene


def _paint(painter: Painter, scene: Description, rng: Random) -> _Scene:
    return _Scene(painter.paint(scene, rng), scene.subject, scene.activity, scene.caption)


SOURCES: dict[str, Callable[[Collection], Callable[[Random], _Scene]]] = {
    "generator": _for_generator,
    "judge": partial(_for_judge, GENERATOR_SETS + JUDGE_SETS),
    "second judge": partial(_for_judge, GENERATOR_SETS + JUDGE_SETS[:-1]),
    "stranger": partial(_for_judge, JUDGE_SETS[-1:]),
    "reader": _for_reader,
}


def subject_label(word: str) -> int:
    """Return the class of a subject; the one after the last is "nothing"."""
    return len(SUBJECTS) if word == NOTHING else SUBJECTS.index(word)


def activity_label(activity: str | None) -> int:
    """Return the class of an activity; 0 is "none"."""
    return 1 + ACTIVITIES.index(activity) if activity else 0
