"""Writes the checkpoints of a run, and loads the one that it resumes from."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import TrainerState

from ..config import DDPOConfig
from ..learning.algorithm import BoundAlgorithm
from ..learning.rollout import Rollout
from ..loop.epochs import steps_as_given
from ..loop.metrics import RunMetrics
from ..loop.shards import has_shares
from ..model.weights import RunWeights
from .checkpoint import DDPOState, check_state
from .final_weights import begin_training, writing_final_weights
from .folder import RunFolder
from .manifest import check_checkpoint, prune, remove_manifest, write_manifest
from .place import locked, naming_disk_faults
from .setup import RunSetup
from .setup.resuming import changes, check_setup, remembered

logger = logging.getLogger(__name__)


class Checkpointer:
    """
    Adds DDPO's state to `Trainer`'s checkpoints, and a manifest that marks them as complete.

    Args:
        args ([`DDPOConfig`]):
            The run's options.
        algorithm ([`BoundAlgorithm`]):
            The algorithm, whose weighting remembers rewards.
        weights ([`RunWeights`]):
            The trained weights.
        accelerator (`Accelerator`):
            The trainer's accelerator, for which processes wait for one another.
        setup ([`RunSetup`]):
            What makes the run.

    Parameters:
        newest (`Path`, *optional*):
            The checkpoint that this run wrote or loaded last.
        resumed_setup (`Mapping[str, Any]`, *optional*):
            The setup of the checkpoint that was loaded last.
        resumed_rollouts (`int`):
            Number of rollouts up to the one that this checkpoint holds; 0 if it holds none.
    """

    def __init__(
        self,
        args: DDPOConfig,
        algorithm: BoundAlgorithm[Any, Any],
        weights: RunWeights,
        accelerator: Accelerator,
        setup: RunSetup,
    ):
        self.args = args
        self.algorithm = algorithm
        self.weights = weights
        self.accelerator = accelerator
        self.setup = setup
        self.newest: Path | None = None
        self.resumed_setup: Mapping[str, Any] | None = None
        self.resumed_rollouts = 0

    def folder_of(self, updates: int) -> Path:
        """Return the folder of the checkpoint after `updates` updates."""
        return self.args.folder / f"checkpoint-{updates}"

    def is_newest(self, updates: int) -> bool:
        """Return whether the checkpoint after `updates` updates is the one that was written or loaded last."""
        return self.newest == self.folder_of(updates).resolve()

    @contextlib.contextmanager
    def owning_folder(self) -> Iterator[None]:
        """
        Context manager for a whole run: no other run may write its folder, and a disk that can no longer be written is named.

        Raises:
            [`OutputDirError`]: another process runs in this folder, or it cannot be written any more.
        """
        folder = self.args.folder
        with locked(folder) if self.args.should_save else contextlib.nullcontext(), naming_disk_faults(folder):
            if self.args.should_save:
                begin_training(folder)
            yield

    @contextlib.contextmanager
    def saving(self, folder: Path) -> Iterator[Path]:
        """
        Context manager for writing weights into a folder: a checkpoint, the run's own, or any other.

        Yields:
            `Path`: where to write them.

        Raises:
            [`OutputDirError`]: it cannot be written any more.
        """
        own = folder.resolve() == self.args.folder.resolve()
        with (
            naming_disk_faults(folder),
            writing_final_weights(folder) if own else contextlib.nullcontext(folder) as place,
        ):
            yield place

    @contextlib.contextmanager
    def writing(self, state: TrainerState, rollout: Rollout[Any] | None, metrics: RunMetrics) -> Iterator[None]:
        """
        Complete the checkpoint that `Trainer` writes inside the block, then remove old ones. Every process must call this.

        Args:
            state (`TrainerState`):
                The trainer's state; its `global_step` names the checkpoint.
            rollout ([`Rollout`], *optional*):
                The rollout in training, if updates on it are still to come.
            metrics ([`RunMetrics`]):
                The measurements since the last log.
        """
        folder = self.folder_of(state.global_step)
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # remove none before this one is whole
        try:
            remove_manifest(folder)
            with steps_as_given(state, self.args):
                yield
        finally:
            self.args.save_total_limit = limit
        memory = (self.algorithm.weighting.state_dict(), self.algorithm.gate.state_dict())
        own = DDPOState(self.setup.as_dict(), self.algorithm.algorithm.name, *memory, rollout, metrics.state_dict())
        own.save(folder, self.args.process_index, self.args.world_size)
        if self.args.should_save:
            self.weights.add_to_checkpoint(folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_manifest(folder)
            prune(self.args.folder, limit, state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()  # launchers kill the others when one process ends
        self.newest = folder.resolve()

    def resolve(self, resume_from_checkpoint: str | bool | None) -> str | None:
        """
        Find the checkpoint to resume from: the named one, or for `True` the newest. The main process decides for all.

        Raises:
            [`CheckpointError`]: the named one is damaged, or not there.
        """
        self.newest = self.resumed_setup = None
        self.setup = self.setup.begun(self.args)
        if isinstance(resume_from_checkpoint, str | Path):
            check_checkpoint(Path(resume_from_checkpoint))
            return str(resume_from_checkpoint)
        found = self._newest_whole() if resume_from_checkpoint and self.args.process_index == 0 else None
        chosen: str | None = broadcast_object_list([found])[0]
        return chosen

    def _newest_whole(self) -> str | None:
        newest = RunFolder(self.args.folder).newest()
        if newest is None:
            logger.warning("%s holds no whole checkpoint: training starts from the beginning.", self.args.folder)
        return None if newest is None else str(newest)

    def load(self, folder: Path) -> DDPOState:
        """
        Load the weights and the algorithm's memory; return the whole state.

        Raises:
            [`CheckpointError`]: the checkpoint belongs to a run with other options.
            [`ConfigError`]: its weights do not fit the model.
        """
        state = DDPOState.load(folder, self.args.process_index, self.args.world_size)
        check_state(folder, state, self.algorithm.algorithm.name, self.args.images_per_process)
        setup = self.setup.as_dict()
        check_setup(folder, state.setup, setup, state.rollout is not None)
        if not has_shares(folder):  # which are read with the optimizer's state
            self.weights.load_checkpoint(folder, self.args.ema_decay)
        memory, forgotten = remembered(state.setup, setup, state.weighting)
        if memory is not None:
            self.algorithm.weighting.load_state_dict(memory)
        self.algorithm.gate.load_state_dict(state.gate)
        if self.args.should_save:
            self._say_what_is_different(folder, changes(state.setup, setup), forgotten)
        self.newest, self.resumed_setup = folder.resolve(), state.setup
        self.resumed_rollouts = 0 if state.rollout is None else state.rollout.index + 1
        return state

    def _say_what_is_different(self, folder: Path, options: Sequence[str], forgotten: Sequence[str]) -> None:
        if options:
            said = ", ".join(options)
            logger.warning("Resumed from %s with other options, which apply from here on: %s.", folder, said)
        if forgotten:
            logger.warning(
                "Not as in the run that wrote %s (another function, version, option or weight): %s. What was remembered there "
                "is not compared with the new rewards, so their baseline begins empty.",
                folder,
                ", ".join(forgotten),
            )
