"""A `Trainer` that knows when the run that it resumes is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from ..loop.trackers import TrackedTrainer
from .contents import check_contents


class ResumableTrainer(TrackedTrainer):
    """A `Trainer` that makes no update more when it resumes a run that has made its last one."""

    _updates_before = 0

    def __repr__(self) -> str:
        checkpointer = vars(self).get("_checkpointer")  # not there yet where the constructor has failed
        return f"{type(self).__name__}({'' if checkpointer is None else checkpointer.setup.summary})"

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """
        Train. See `Trainer.train`; the checkpoint must be a folder.

        Raises:
            [`CheckpointError`]: a file of the checkpoint cannot be read.
        """
        self._updates_before = 0
        if resume_from_checkpoint:
            check_contents(Path(resume_from_checkpoint))
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
            self._updates_before = state.global_step
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def set_initial_training_values(self, *args: Any, **kwargs: Any) -> Any:
        """Return the length of the training: after its last update, no epoch, also in the middle of one."""
        epochs, updates_per_epoch, *others, max_steps = super().set_initial_training_values(*args, **kwargs)
        if self._updates_before >= max_steps:
            epochs = self._updates_before // updates_per_epoch
        return (epochs, updates_per_epoch, *others, max_steps)
