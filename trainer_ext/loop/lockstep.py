"""Keeps processes together: when one is interrupted or fails, the others stop too, instead of waiting for it."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from textwrap import shorten

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, gather_object
from torch.distributed import DistError

from ddpo_plugins.errors import DDPOError
from ddpo_plugins.masking import masked_message

from ..errors import ProcessLostError
from .interrupts import StopRequest, stop_error

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
        if accelerator.num_processes > 1:
            atexit.register(leave_process_group)

    def check(self) -> None:
        """
        Stop here if any process was asked to. Call it where parameters, optimizer and files are consistent.

        Raises:
            [`StopRequestedError`]: Ctrl-C was pressed, or a scheduler ends the run.
        """
        self._meet()

    def agree(self, consents: bool) -> bool:
        """
        Return whether all processes consent to something. It may stop here as [`check`](Lockstep.check).

        Raises:
            [`StopRequestedError`]: as [`check`](Lockstep.check).
        """
        return not self._meet(refuses=not consents)

    def _meet(self, refuses: bool = False) -> bool:
        """Stop here if any process was asked to; else return whether any refuses something."""
        signum, failed, refused = self._share(self.stop.signum, refuses=refuses)
        if failed:
            raise _OtherFailedError
        if signum:
            raise stop_error(signum)
        return refused

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
            if not self._share(0)[1]:
                return
        except _OtherFailedError:
            pass
        except Exception as error:
            if not self.fails_together:
                raise  # the launcher ends the others
            self._share(0, failed=True)
            failure = error
        failures = gather_object([_described(failure)])
        if failure is not None:
            raise failure
        process, description = next((i, text) for i, text in enumerate(failures) if text is not None)
        raise DDPOError(f"Process {process} failed, so all stop. Its error: {description}")

    @contextlib.contextmanager
    def naming_lost_processes(self) -> Iterator[None]:
        """
        Context manager for a whole run: says in one sentence that another process is gone, instead of a backend's words.

        Raises:
            [`ProcessLostError`]: another process ended without a word, or did not answer in time.
        """
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, DistError) and "gloo" not in str(error):
                raise
            raise ProcessLostError(
                "Another process of this run was killed, or did not answer in time, so this one ends too: its own output says "
                "more. Continue with resume_from_checkpoint=True (--resume_from_checkpoint true). The backend said: "
                f"{shorten(str(error), 160)}"
            ) from error

    @property
    def fails_together(self) -> bool:
        """Whether all processes leave [`guarded`] with an error if one does."""
        return self.accelerator.distributed_type in WHOLE_MODELS

    def _share(self, signum: int, *, failed: bool = False, refuses: bool = False) -> tuple[int, bool, bool]:
        """Return the highest signal that asked any process to stop (0: none did), whether any failed, and any refuses."""
        if self.accelerator.num_processes == 1:
            return signum, failed, refuses
        flags = torch.tensor([[signum, failed, refuses]], dtype=torch.int32, device=self.accelerator.device)
        highest, *others = self.accelerator.gather(flags).amax(dim=0).tolist()
        return highest, *map(bool, others)


def join_process_group(backend: str | None, timeout: timedelta) -> None:
    """Let CPUs join the group of processes that a launcher announced, with a time-out; `TrainingArguments` drops theirs."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=True, backend=backend, timeout=timeout)


def leave_process_group() -> None:
    """Leave the group of processes. Otherwise its threads may abort a program that has done its work, as it exits."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class _OtherFailedError(Exception):
    """Another process failed, and is about to report its error."""


def _described(error: Exception | None) -> str | None:
    return None if error is None else masked_message(f"{type(error).__name__}: {error}")
