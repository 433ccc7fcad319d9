"""A push in a process of its own: the training neither waits for it nor fails with it."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from .push import Push, command

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushProcess:
    """
    A push that runs beside the training.

    Parameters:
        push ([`Push`]):
            The push.
        process (`subprocess.Popen`):
            The process.
        dataset (`bool`):
            True pushes the images, False the adapter.
    """

    push: Push
    process: subprocess.Popen[str]
    dataset: bool = False

    @classmethod
    def start(cls, push: Push, token: str | None, dataset: bool = False) -> PushProcess:
        """Start a push. The token is handed on in the environment, where no list of processes shows it."""
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        given = {} if token is None else {"HF_TOKEN": token}
        environment = {**os.environ, **given, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # a full pipe would stop it
        arguments = [sys.executable, "-m", "trainer_ext.cli", *command(push, dataset)[1:]]
        return cls(push, subprocess.Popen(arguments, env=environment, text=True, **pipes), dataset)

    def is_done(self) -> bool:
        """Return whether it has ended, one way or the other."""
        return self.process.poll() is not None

    def result(self) -> str | None:
        """Wait for the end; return the address of what was pushed, or `None`, with a warning that says how to do it later."""
        output, errors = (text.strip().splitlines() for text in self.process.communicate())
        if self.process.returncode == 0 and output:
            return str(output[-1])
        reason = errors[-1] if errors else f"the push ended with status {self.process.returncode}"
        logger.warning(
            "%s was not pushed: %s\nIt is in %s. Push it with: %s",
            "The dataset" if self.dataset else self.push.title,
            reason.removeprefix("ddpo push: "),
            self.push.folder.path,
            shlex.join(command(self.push, self.dataset)),
        )
        return None
