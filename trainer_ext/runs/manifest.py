"""
Checkpoints that can be trusted. When all files of a checkpoint are written, a manifest lists their sizes and hashes. A
checkpoint without a manifest was cut short; one that differs from its manifest was damaged; neither is resumed from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import CheckpointError
from .atomic import PARTIAL, replacing

logger = logging.getLogger(__name__)

MANIFEST = "ddpo_manifest.json"
FINAL = "ddpo_final.json"  #: beside the weights in a run's own folder; see final_weights.py
CHUNK_BYTES = 1 << 22
UNKNOWN = sys.maxsize  # order of a checkpoint without a legible manifest


def write_manifest(folder: Path) -> None:
    """Declare the checkpoint in `folder` complete."""
    content = {name: [(folder / name).stat().st_size, _sha256(folder / name)] for name in sorted(_files_of(folder))}
    with replacing(folder / MANIFEST) as file:
        file.write_text(json.dumps({"order": next_order(folder.parent), "files": content}, indent=1))


def remove_manifest(folder: Path) -> None:
    """Declare the checkpoint in `folder` incomplete, before changing or removing it."""
    (folder / MANIFEST).unlink(missing_ok=True)


def find_damage(folder: Path) -> str | None:
    """Return a description of the damage to the checkpoint in `folder`; `None` if it is whole."""
    try:
        listed = _read_manifest(folder)["files"]
    except FileNotFoundError:
        return f"it has no {MANIFEST}: the run was killed while it was written, or another program wrote it"
    except (OSError, ValueError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    added = sorted(_files_of(folder) - listed.keys())
    if added:
        return f"{added[0]} is not in its {MANIFEST}: another program put it there"
    for name, (size, digest) in listed.items():
        problem = _file_damage(folder / name, size, digest)
        if problem is not None:
            return f"{name} {problem}"
    return None


def _files_of(folder: Path) -> set[str]:
    """Return the relative names of all files of a checkpoint, but for its manifest and what a kill left half-written."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    return {name.as_posix() for name in found if PARTIAL not in name.parts} - {MANIFEST}


def _file_damage(path: Path, size: int, digest: str) -> str | None:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # a link or a device may lead anywhere, and have no end
            return "is not a plain file"
        if path.stat().st_size != size:
            return f"has {path.stat().st_size} bytes instead of {size}"
        if _sha256(path) != digest:
            return "was changed since it was written"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error})"
    return None


def next_order(output_dir: Path) -> int:
    """
    Return the number of what is completed next in a run's folder: a checkpoint, or the weights at its end.

    Counted, not timed: the clock of the machine that resumes may be behind, and its checkpoints would be removed first.
    """
    orders = [*map(order_of, checkpoints(output_dir)), order_of(output_dir, FINAL)]
    return max((order for order in orders if order < UNKNOWN), default=0) + 1


def newest_first(output_dir: Path) -> list[Path]:
    """
    Return the checkpoints of a run in the order in which they were written, the last one first.

    That is not the order of their updates: resuming from an older one with other options leaves newer ones behind.
    """
    return sorted(checkpoints(output_dir), key=lambda folder: (order_of(folder), updates_of(folder)), reverse=True)


def latest_branch(output_dir: Path) -> Iterator[Path]:
    """
    Yield the complete checkpoints of the branch of a run that was written last, its newest one first.

    One that has more updates than another that was written later is of a branch that the run left for an older checkpoint.
    """
    updates = sys.maxsize
    for folder in newest_first(output_dir):
        if updates_of(folder) < updates and (folder / MANIFEST).is_file():
            updates = updates_of(folder)
            yield folder


def newest_checkpoint(output_dir: Path) -> Path | None:
    """Return the checkpoint that was written last and is whole; `None` if there is none. Warn about damaged ones."""
    return next(whole(newest_first(output_dir)), None)


def whole(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the checkpoints that are whole. Warn about the others."""
    for folder in folders:
        problem = find_damage(folder)
        if problem is None:
            yield folder
        else:
            logger.warning("%s is not used: %s.", folder, problem)


def check_checkpoint(folder: Path) -> None:
    """
    Check that a checkpoint can be resumed from.

    Raises:
        [`CheckpointError`]: there is no such checkpoint, or it is damaged.
    """
    problem = find_damage(folder) if folder.is_dir() else "there is no such folder"
    if problem is not None:
        raise CheckpointError(
            f"{folder} cannot be resumed from: {problem}. Use resume_from_checkpoint=True (--resume_from_checkpoint true) "
            "for the newest checkpoint of the output folder that is whole."
        )


def checkpoints(output_dir: Path) -> list[Path]:
    """Return the checkpoints of a run, whole or not, oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=updates_of)


def updates_of(checkpoint: Path) -> int:
    """Return the number of optimizer updates before a checkpoint, from its name."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def prune(output_dir: Path, limit: int | None, best: str | None) -> None:
    """Keep the newest `limit` whole checkpoints (`None`: all), and the best."""
    if not limit:
        return
    complete = sorted((path for path in checkpoints(output_dir) if (path / MANIFEST).is_file()), key=order_of)
    for folder in complete[:-limit]:
        if best is None or folder.resolve() != Path(best).resolve():
            remove_manifest(folder)
            shutil.rmtree(folder)


def order_of(folder: Path, record: str = MANIFEST) -> int:
    """Return when the content of a folder was completed; without a legible record it counts as the newest."""
    try:
        order = json.loads((folder / record).read_text(encoding="utf-8"))["order"]
    except (OSError, ValueError, TypeError, KeyError):
        return UNKNOWN
    return order if isinstance(order, int) else UNKNOWN


def _read_manifest(folder: Path) -> Any:
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.keys() != {"order", "files"} or not isinstance(content["files"], dict):
        raise ValueError("not the content of a manifest")
    for name, entry in content["files"].items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{name!r} is no file of this folder")
        if not isinstance(entry, list) or [type(value) for value in entry] != [int, str]:
            raise ValueError(f"{entry!r} is no size and hash of a file")
    return content


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
