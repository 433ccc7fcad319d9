"""A `Trainer` that knows when the run that it resumes is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from ..config import DDPOConfig
from ..loop.shards import gathered, is_sharded, read_share, share_file, write_share
from ..loop.trackers import TrackedTrainer
from .contents import check_contents


class ResumableTrainer(TrackedTrainer):
    """A `Trainer` that makes no update more when it resumes a run that has made its last one."""

    args: DDPOConfig
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    lr_scheduler: torch.optim.lr_scheduler.LambdaLR

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

    @property
    def _in_shares(self) -> bool:
        """Whether each process saves its own share. Without FSDP nobody is asked: a later trainer may have reset what knows."""
        return self.is_fsdp_enabled and is_sharded(self.accelerator)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save. See `Trainer.save_model`, which writes nothing where each process saves its own share."""
        if not self._in_shares:
            super().save_model(output_dir, _internal_call)
            return
        if _internal_call and self.args.full_finetuning:
            return  # a checkpoint has the shares; all of it is put together once, at the end
        self._save(output_dir, gathered(self.model, self.args.should_save))
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._in_shares:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        write_share(self._share_in(output_dir), self.model, self.optimizer)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self._in_shares:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        read_share(self._share_in(checkpoint), self.model, self.optimizer)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _share_in(self, folder: str) -> Path:
        return share_file(Path(folder), self.args.process_index, self.args.world_size)

    def set_initial_training_values(self, *args: Any, **kwargs: Any) -> Any:
        """Return the length of the training: after its last update, no epoch, also in the middle of one."""
        epochs, updates_per_epoch, *others, max_steps = super().set_initial_training_values(*args, **kwargs)
        if self._updates_before >= max_steps:
            epochs = self._updates_before // updates_per_epoch
        return (epochs, updates_per_epoch, *others, max_steps)
