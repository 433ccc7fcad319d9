"""A `Trainer` that pushes its run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import HubStrategy

from ..errors import HubAccessError, HubError
from ..loop.describing import describing
from ..runs.folder import RunFolder
from ..runs.resumable import ResumableTrainer
from .cards.weights import Weights
from .checkpoints import local_checkpoint
from .client import Hub
from .kohya import write_kohya_file
from .process import PushProcess
from .push import Push

logger = logging.getLogger(__name__)


# What of checkpoints is pushed, by strategy. All but the new ones are there already, and are not uploaded again.
CHECKPOINTS = {HubStrategy.CHECKPOINT: "last", HubStrategy.ALL_CHECKPOINTS: "all"}


class HubTrainer(ResumableTrainer):
    """
    A `Trainer` whose pushes are separate processes that read the run's folder. If one fails, everything local is there, and a
    warning has the command that does it later.

    Parameters:
        failed_push ([`Push`], *optional*):
            The last push, if it failed.
    """

    hub_model_id: Any = None
    push_in_progress: Any = None
    failed_push: Push | None = None

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """
        Create the repository, before any long work.

        Raises:
            [`HubAccessError`]: the token is wrong, or may not write there. If the Hub does not answer, only a warning is given.
        """
        if not self.is_world_process_zero():
            return
        hub = Hub(token or self.args.hub_token)
        name = self.args.hub_model_id or Path(str(self.args.output_dir)).name
        private = self.args.hub_private_repo if private is None else private
        try:
            self.hub_model_id = hub.create(hub.full_name(name), private=private)
        except HubAccessError:
            raise
        except HubError as error:
            logger.warning("The Hub cannot be reached now (%s). The run goes on, and is pushed when it can be.", error)
            self.hub_model_id = name

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Save the model and push it with its card and pictures. See `Trainer.push_to_hub`.

        Returns:
            `str`: the address of the repository; `None` if `blocking=False`, or if it could not be pushed.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        private = self.args.hub_private_repo if private is None else private
        push = Push(self._run, self._repo, private, revision or self.args.hub_revision, message=commit_message)
        self._start_push(push, token)
        return self._finish_current_push() if blocking else None

    def push_dataset_to_hub(self, token: str | None = None, private: bool | None = None) -> str | None:
        """
        Push the images of the run with their rewards, as the dataset `{repository}-images`. Every process must call this.

        Args:
            token (`str`, *optional*):
                A token that may write; by default `args.hub_token`, or the one that is logged in.
            private (`bool`, *optional*):
                Whether a dataset that is created is private; by default `args.hub_private_repo`.

        Returns:
            `str`: the address of the dataset; `None` if it could not be pushed, with a warning that says how to do it later.
        """
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        private = self.args.hub_private_repo if private is None else private
        push = Push(self._run, self._repo, private, self.args.hub_revision)
        self.push_in_progress = PushProcess.start(push, token or self.args.hub_token, dataset=True)
        address: str | None = self._finish_current_push()
        return address

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push nothing yet: `Trainer` calls this before the checkpoint is complete."""

    def push_checkpoint(self) -> None:
        """Push the adapter of a checkpoint that was just completed, if options ask for it. Every process must call this."""
        asked = self.args.push_to_hub and self.args.hub_strategy != HubStrategy.END
        if not asked or not self.is_world_process_zero():
            return
        under_way = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if under_way and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self._finish_current_push()
        push = Push(
            self._run,
            str(self.hub_model_id),
            self.args.hub_private_repo,
            self.args.hub_revision,
            self.state.global_step,
            checkpoints=CHECKPOINTS.get(HubStrategy(self.args.hub_strategy)),
        )
        self._start_push(push, None)

    def _start_push(self, push: Push, token: str | None) -> None:
        with describing("The adapter for ComfyUI and A1111"):  # here, where torch is loaded already
            write_kohya_file(Weights.of(push.folder, push.checkpoint))
        self.push_in_progress = PushProcess.start(push, token or self.args.hub_token)

    def _finish_current_push(self) -> Any:
        """Wait for the push that is under way, and warn if it failed; return the address of what was pushed."""
        process, self.push_in_progress = self.push_in_progress, None
        if process is None:
            return None
        address: str | None = process.result()
        self.failed_push = process.push if address is None else None
        return address

    def fetched(self, resume_from: str | bool | None) -> str | bool | None:
        """
        Return what to resume from on this machine. Every process must call this; one of them fetches.

        Raises:
            [`CheckpointError`], [`HubError`]: there is no such checkpoint, or it cannot be fetched.
        """
        if not isinstance(resume_from, str | Path):
            return resume_from
        found = None
        if self.is_world_process_zero():
            found = local_checkpoint(str(resume_from), self._run.path, Hub(self.args.hub_token))
        place: str = broadcast_object_list([found])[0]
        return place

    @property
    def _repo(self) -> str:
        return str(self.hub_model_id or self.args.hub_model_id or self._run.path.name)

    @property
    def _run(self) -> RunFolder:
        return RunFolder(Path(str(self.args.output_dir)))
