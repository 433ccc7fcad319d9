"""What of a run is uploaded to the Hub: files that hold neither code nor secrets."""

from __future__ import annotations

from typing import Any

from huggingface_hub import HfApi
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from .resumable import ResumableTrainer

# Nothing that unpickles: `Trainer` would upload its arguments, with the token, as `training_args.bin`.
UPLOADED = (
    "*.safetensors",
    "*.json",
    "*.jsonl",
    "*.md",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.png",
    "*.parquet",
    "*.tfevents.*",
)
NOT_UPLOADED = ("_*", "checkpoint-*", ".*", "*/.*")  # unfinished files are in `.partial`


class HubTrainer(ResumableTrainer):
    """A `Trainer` that uploads what the run is for others: no pickles, and so not its arguments."""

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Save the model and upload the run's folder, without checkpoints. See `Trainer.push_to_hub`."""
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token, *(() if private is None else (private,)))  # transformers 4 has no `private`
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**{"model_name": str(self.hub_model_id).split("/")[-1], **kwargs})
        self._finish_current_push()
        return self._upload(str(commit_message), token=token, revision=revision, run_as_future=not blocking)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload the run's folder with the model of a checkpoint, which was just written. Every process must call this."""
        if self.args.hub_strategy == HubStrategy.END:
            return
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return
        push: Any = self.push_in_progress
        under_way = [] if push is None or push.is_done() else push.jobs
        if under_way and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        job = self._upload(f"Training in progress, update {self.state.global_step}", run_as_future=True)
        jobs: Any = [*under_way, job]
        self.push_in_progress: Any = PushInProgress(jobs)

    def _upload(
        self, message: str, *, run_as_future: bool, token: str | None = None, revision: str | None = None
    ) -> Any:
        return HfApi().upload_folder(
            repo_id=str(self.hub_model_id),
            folder_path=str(self.args.output_dir),
            commit_message=message,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            run_as_future=run_as_future,  # type: ignore[call-overload]
            allow_patterns=list(UPLOADED),
            ignore_patterns=list(NOT_UPLOADED),
        )
