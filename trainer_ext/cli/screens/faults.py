"""An error of another library, at the border of the command: one line with its cause, and a file with the rest."""

from __future__ import annotations

import contextlib
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from ddpo_plugins.masking import masked_message

OURS = ("trainer_ext", "ddpo_plugins", "reward_plugins")
# Errors that are faults of whoever raised or caused them. All others, such as a full memory or a file that is not there, happen.
PROGRAMMING = (AssertionError, AttributeError, LookupError, NameError, NotImplementedError, TypeError)


def is_our_fault(error: BaseException) -> bool:
    """Return whether an error says that this package has a fault, whose whole trace belongs into a report."""
    *_, last = _modules(error.__traceback__)
    return isinstance(error, PROGRAMMING) or last.partition(".")[0] in OURS


def _modules(trace: TracebackType | None) -> Iterator[str]:
    """Yield the name of the module of each frame of a trace, the innermost last."""
    yield ""
    while trace is not None:
        yield str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next


def outside_error(error: BaseException) -> str:
    """Return the first line of an error with its type, and where its trace is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = masked_message(lines[0] if lines else "without a message")
    return f"{type(error).__name__}: {said} {_kept(error)}"


def _kept(error: BaseException) -> str:
    """Write the trace into a file, for a run of hours is not repeated to see it; return a sentence on that."""
    with contextlib.suppress(OSError):
        with tempfile.NamedTemporaryFile(
            "w", prefix="ddpo-error-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(masked_message("".join(traceback.format_exception(error))))
        return f"(--debug shows where; so does {Path(file.name)})"
    return "(--debug shows where)"
