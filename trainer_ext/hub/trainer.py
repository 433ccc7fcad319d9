"""A `Trainer` that pushes its run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers.trainer_utils import HubStrategy

from ..errors import HubAccessError, HubError
from ..runs.folder import RunFolder
from ..runs.resumable import ResumableTrainer
from .process import PushProcess
from .push import Push
from .upload import Hub

logger = logging.getLogger(__name__)


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
        repo = self.hub_model_id or self.args.hub_model_id or Path(str(self.args.output_dir)).name
        private = self.args.hub_private_repo if private is None else private
        push = Push(self._run, repo, private, revision or self.args.hub_revision, message=commit_message)
        self._start_push(push, token)
        return self._finish_current_push() if blocking else None

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push the adapter of a checkpoint that was just completed. Every process must call this."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        under_way = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if under_way and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self._finish_current_push()
        private, revision = self.args.hub_private_repo, self.args.hub_revision
        self._start_push(Push(self._run, str(self.hub_model_id), private, revision, self.state.global_step), None)

    def _start_push(self, push: Push, token: str | None) -> None:
        self.push_in_progress = PushProcess.start(push, token or self.args.hub_token)

    def _finish_current_push(self) -> Any:
        """Wait for the push that is under way, and warn if it failed; return the address of what was pushed."""
        process, self.push_in_progress = self.push_in_progress, None
        if process is None:
            return None
        address: str | None = process.result()
        self.failed_push = process.push if address is None else None
        return address

    @property
    def _run(self) -> RunFolder:
        return RunFolder(Path(str(self.args.output_dir)))
