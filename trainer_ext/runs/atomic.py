"""Files and folders that exist either whole or not at all, whenever the process is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"  #: the folder of files that are not whole yet


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """
    Yield a temporary path for a file or a folder, which replaces `path` when the block ends without an error.

    The temporary path lies in a separate folder beside `path`, so that no listing of files finds it.
    """
    place = path.parent / PARTIAL / path.name
    _remove(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    yield place
    if path.is_dir():  # os.replace replaces only files
        shutil.rmtree(path)
    os.replace(place, path)
    with contextlib.suppress(OSError):  # another file may be being written there
        place.parent.rmdir()


@contextlib.contextmanager
def moved_in(folder: Path) -> Iterator[Path]:
    """
    Yield a temporary folder, whose files are moved into `folder` when the block ends without an error. Each is there either whole
    or as it was.
    """
    place = folder / PARTIAL / "moved in"
    _remove(place)
    place.mkdir(parents=True)
    yield place
    for file in sorted(path for path in place.rglob("*") if path.is_file()):
        target = folder / file.relative_to(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
    shutil.rmtree(place)
    with contextlib.suppress(OSError):
        place.parent.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
