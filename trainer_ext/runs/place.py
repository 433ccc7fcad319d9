"""The output folder as a place on a disk: that it can be written, that no other process writes it, and what full disks say."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import OutputDirError

logger = logging.getLogger(__name__)

LOCK = ".ddpo.lock"
OWNER = ".ddpo.owner"  # beside the lock, which everyone who tries it truncates
PROBE = ".ddpo.probe"
PROBES = 20  # tries, of which each process on the machine may spoil one
PROBE_BYTES = 1 << 16  # more than the rest of a block, which a full disk may still have
CAUSES = {
    errno.ENOSPC: "no space is left on its disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "it is on a read-only file system",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "there is a file with this name",
    errno.ENAMETOOLONG: "the path is too long",
    errno.ENOTCONN: "its file system is gone",
    errno.EIO: "its disk reports an error",
    errno.ESTALE: "its file system is gone",
}


def check_writable(folder: Path) -> None:
    """
    Write a file into a folder, and remove it with all folders that were created for it.

    Raises:
        [`OutputDirError`]: that is impossible; the message says why.
    """
    try:
        for _ in range(PROBES):
            # Another process has just removed the folder that it created: before a file was written to it, or between mkdir's
            # finding that it exists and its looking whether it is a folder.
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                return _probe(folder)
            time.sleep(0.02)
        _probe(folder)
    except OSError as error:
        raise OutputDirError(
            f"output_dir={str(folder)!r} cannot be written: {_cause(error)}. Make it writable, or give another output_dir."
        ) from error


def _probe(folder: Path) -> None:
    probe = folder / f"{PROBE}-{os.getpid()}"  # processes may look at the same time
    created = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
    finally:
        probe.unlink(missing_ok=True)
        for path in created:
            with contextlib.suppress(OSError):  # another process uses it by now, or has removed it
                path.rmdir()


@contextlib.contextmanager
def naming_disk_faults(folder: Path) -> Iterator[None]:
    """
    Context manager for writing into a run's folder. Writers report a full disk in their own ways ("unexpected pos 14976 vs
    14864"), so after any error the folder is tried.

    Raises:
        [`OutputDirError`]: the folder cannot be written any more.
    """
    try:
        yield
    except OutputDirError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in CAUSES:
            raise _lost(folder, error) from error
        try:
            check_writable(folder)
        except OutputDirError as found:
            raise _lost(folder, found.__cause__) from error
        raise


def _lost(folder: Path, error: BaseException | None) -> OutputDirError:
    return OutputDirError(
        f"{folder} cannot be written any more: {_cause(error)}. Nothing that was complete is lost: make it writable again, "
        "then continue with resume_from_checkpoint=True (--resume_from_checkpoint true)."
    )


def _cause(error: BaseException | None) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return f"{CAUSES[number]} ({error})" if number in CAUSES else str(error)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """
    Context manager that keeps other processes from running in the same folder. The system releases the lock of a process that
    is killed.

    Raises:
        [`OutputDirError`]: a process that is still alive runs there; the message has its host and number.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise OutputDirError(
            f"Another process writes to {folder}: {_owner(folder)}. Wait for its end or stop it, or give another output_dir; "
            "nothing was changed."
        ) from error
    except (OSError, NotImplementedError) as error:  # some network file systems have no locks
        logger.warning("%s cannot be locked (%s): do not start a second run there.", folder, error)
        yield
        return
    try:
        (folder / OWNER).write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        return (folder / OWNER).read_text(encoding="utf-8")
    except OSError:
        return "it has just begun"
