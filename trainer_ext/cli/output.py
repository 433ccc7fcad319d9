"""Output that nobody can read any more does not end a command."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class LossyFile(io.FileIO):
    """
    A file that drops what cannot be written: the reader of a pipe is gone, a disk is full, the terminal is closed.

    Parameters:
        error (`OSError`, *optional*):
            The reason why something was dropped.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write, or drop."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            with open(os.devnull, "wb") as nowhere:  # also for what other code writes to this descriptor
                os.dup2(nowhere.fileno(), self.fileno())
            return memoryview(data).nbytes


@contextlib.contextmanager
def lossy_output() -> Iterator[None]:
    """Context manager in which writing to standard output and error never fails; what was lost is said at its end."""
    out, err = _lossy(sys.stdout), _lossy(sys.stderr)
    with contextlib.redirect_stdout(_text(out, sys.stdout)), contextlib.redirect_stderr(_text(err, sys.stderr)):
        try:
            yield
        finally:
            sys.stdout.flush()
            if out is not None and out.error is not None and not isinstance(out.error, BrokenPipeError):
                print(f"ddpo: a part of the output could not be written: {out.error.strerror}.", file=sys.stderr)
            sys.stderr.flush()


def _lossy(stream: TextIO | None) -> LossyFile | None:
    """Return the file under a stream; `None` if there is none, as in a notebook."""
    try:
        return None if stream is None else LossyFile(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):
        return None


def _text(file: LossyFile | None, stream: TextIO | None) -> TextIO:
    if stream is None:
        return io.StringIO()  # the program was started with a closed descriptor
    if file is None:
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(file), stream.encoding, stream.errors, write_through=True, line_buffering=stream.isatty()
    )
