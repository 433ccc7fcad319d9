"""Keeps processes together: when one is interrupted or fails, the others stop too, instead of waiting for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object

from ddpo_plugins.errors import DDPOError

from .interrupts import StoppedError, StopRequest

# Elsewhere a forward pass is a collective call itself, so a failing process cannot meet the others at the next check.
WHOLE_MODELS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class Lockstep:
    """
    Lets all processes stop at the same place. Every process must call [`check`] equally often.

    Args:
        accelerator (`Accelerator`):
            The trainer's accelerator.
        stop ([`StopRequest`]):
            This process's request to stop.
    """

    def __init__(self, accelerator: Accelerator, stop: StopRequest):
        self.accelerator = accelerator
        self.stop = stop

    def check(self) -> None:
        """
        Stop here if any process was asked to. Call it where parameters, optimizer and files are consistent.

        Raises:
            [`StoppedError`]: Ctrl-C was pressed.
        """
        stopping, failed = self._count(stopping=self.stop.requested, failed=False)
        if failed:
            raise _OtherFailedError
        if stopping:
            raise StoppedError

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """
        Context manager for work that may fail in a single process; at its end all processes learn whether it did.

        Raises:
            [`DDPOError`]: another process failed; the message has its number and its error.
        """
        failure: Exception | None = None
        try:
            yield
            if not self._count(stopping=False, failed=False)[1]:
                return
        except _OtherFailedError:
            pass
        except Exception as error:
            if not self.fails_together:
                raise  # the launcher ends the others
            self._count(stopping=False, failed=True)
            failure = error
        failures = gather_object([_described(failure)])
        if failure is not None:
            raise failure
        process, description = next((i, text) for i, text in enumerate(failures) if text is not None)
        raise DDPOError(f"Process {process} failed, so all stop. Its error: {description}")

    @property
    def fails_together(self) -> bool:
        """Whether all processes leave [`guarded`] with an error if one does."""
        return self.accelerator.distributed_type in WHOLE_MODELS

    def _count(self, *, stopping: bool, failed: bool) -> tuple[int, int]:
        """Return how many processes were asked to stop, and how many failed."""
        if self.accelerator.num_processes == 1:
            return int(stopping), int(failed)
        flags = torch.tensor([stopping, failed], dtype=torch.int32, device=self.accelerator.device)
        stop_count, fail_count = self.accelerator.reduce(flags).tolist()
        return stop_count, fail_count


class _OtherFailedError(Exception):
    """Another process failed, and is about to report its error."""


def _described(error: Exception | None) -> str | None:
    return None if error is None else f"{type(error).__name__}: {error}"
