"""What a run does to its folder when it begins or is resumed: its setup is written, and what is of another branch is removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...config import DDPOConfig
from ..folder import RunFolder
from .record import RunSetup, write_setup
from .resuming import apply_changes


class Resuming(Protocol):
    """
    What knows of the checkpoint that a run goes on from.

    Parameters:
        args ([`DDPOConfig`]):
            The run's options.
        accelerator (`Accelerator`):
            The trainer's accelerator, for which processes wait for one another.
        setup ([`RunSetup`]):
            The setup of the run.
        resumed_setup (`Mapping[str, Any]`, *optional*):
            The setup of the checkpoint; `None` for a run that begins.
        resumed_rollouts (`int`):
            Number of rollouts that were made before the checkpoint as far as its own rollout tells; 0 if it has none.
    """

    args: DDPOConfig
    accelerator: Accelerator
    setup: RunSetup
    resumed_setup: Mapping[str, Any] | None
    resumed_rollouts: int


class SetupCallback(TrainerCallback):
    """
    Writes `run.json` when a run begins or is resumed, and makes it true: the optimizer gets the options that it records, and the
    folder keeps no records but those of this run.

    Args:
        checkpointer ([`Resuming`]):
            Knows the setup of the run, and the checkpoint that it resumes from.
    """

    def __init__(self, checkpointer: Resuming):
        self.checkpointer = checkpointer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply changed options, remove the records of another branch, and write the file."""
        setup, resumed = self.checkpointer.setup, self.checkpointer.resumed_setup
        if resumed is not None:
            apply_changes(kwargs["optimizer"], kwargs["lr_scheduler"], resumed, setup.as_dict())
        forget_other_branches(self.checkpointer, state.global_step)
        if state.is_world_process_zero:
            write_setup(RunFolder(self.checkpointer.args.folder), setup, state.global_step, resumed)


def forget_other_branches(run: Resuming, updates: int) -> None:
    """
    Remove what a run's folder records of later updates and rollouts than the checkpoint that it goes on from has; of a run that
    begins, all that an earlier one left. Every process must call this.

    Args:
        run ([`Resuming`]):
            The run.
        updates (`int`):
            Optimizer updates of the checkpoint.
    """
    if run.args.process_index == 0:
        trained_on = -(-updates // run.args.updates_per_rollout)
        rollouts = max(trained_on, run.resumed_rollouts)  # one may have been made, and no update on it
        RunFolder(run.args.folder).forget_after(-1 if run.resumed_setup is None else updates, rollouts)
    run.accelerator.wait_for_everyone()
