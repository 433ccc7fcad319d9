"""
Which weights of a run are its newest: those in its own folder, where a run that ends saves them, or those of a checkpoint, if it
was resumed since.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from ..file_names import LORA_FILE, PEFT_FILE, PIPELINE_FILE
from .atomic import moved_in, replacing
from .manifest import FINAL, checkpoints, next_order, order_of, whole

WEIGHTS = (LORA_FILE, PEFT_FILE, PIPELINE_FILE)  #: the files by which weights are known
OLDEST = 0  #: order of weights that are older than every checkpoint


def begin_training(output_dir: Path) -> None:
    """Record that weights that something else put into a run's folder, such as an export, are older than checkpoints to come."""
    if not (output_dir / FINAL).is_file() and any((output_dir / name).is_file() for name in WEIGHTS):
        _record(output_dir, OLDEST)


@contextlib.contextmanager
def writing_final_weights(output_dir: Path) -> Iterator[Path]:
    """
    Context manager for writing the weights in a run's folder. At its end they are newer than every checkpoint.

    Yields:
        `Path`: the folder to write to, from which they are moved once they are complete.
    """
    _record(output_dir, OLDEST)
    with moved_in(output_dir) as place:
        yield place
    _record(output_dir, next_order(output_dir))


def _record(output_dir: Path, order: int) -> None:
    with replacing(output_dir / FINAL) as file:
        file.write_text(json.dumps({"order": order}) + "\n")


def newest_weights(output_dir: Path) -> Iterator[Path]:
    """
    Yield the folders that may hold weights of a run, the newest first: its own, and each checkpoint that is whole.

    Its own counts as the newest where no training has begun, as in a folder that was downloaded.
    """
    orders = {output_dir: order_of(output_dir, FINAL), **{path: order_of(path) for path in checkpoints(output_dir)}}
    newest_first = sorted(orders, key=lambda folder: orders[folder], reverse=True)
    own = newest_first.index(output_dir)
    yield from whole(newest_first[:own])
    yield output_dir
    yield from whole(newest_first[own + 1 :])
