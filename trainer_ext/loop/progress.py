"""Progress bars: one for the run with the reward beside it, one for the rollout in progress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerControl, TrainerState, TrainingArguments

from .describing import described_as, describing

POSTFIX = ("reward", "approx_kl", "clipfrac")
LINE = (
    "reward",
    "reward_std",
    "loss",
    "grad_norm",
    "ratio",
    "approx_kl",
    "clipfrac",
    "seconds/rollout",
    "seconds/reward_wait",
    "seconds/training",
)
SLOW_SECONDS = 10.0  #: of waiting for rewards, after which the bar shows it


class RolloutProgress(ProgressCallback):
    """`Trainer`'s bar over updates, with the reward in the postfix and one short line for each log."""

    @classmethod
    def replace_default(cls, trainer: Trainer, enabled: bool) -> None:
        """Replace `Trainer`'s own bar; if `enabled` is false, remove the lines that it prints instead."""
        trainer.remove_callback(ProgressCallback if enabled else PrinterCallback)
        if enabled:
            trainer.add_callback(cls())

    on_train_begin = described_as("The progress bar")(ProgressCallback.on_train_begin)
    on_step_end = described_as("The progress bar")(ProgressCallback.on_step_end)
    on_prediction_step = described_as("The progress bar")(ProgressCallback.on_prediction_step)
    on_evaluate = described_as("The progress bar")(ProgressCallback.on_evaluate)
    on_train_end = described_as("The progress bar")(ProgressCallback.on_train_end)

    @described_as("A line of the log")
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show a log."""
        if not state.is_world_process_zero or self.training_bar is None or logs is None:
            return
        postfix = {key: f"{logs[key]:.4g}" for key in POSTFIX if key in logs}
        if postfix:  # a log of pictures or of an evaluation leaves the last reward where it is
            self.training_bar.set_postfix(postfix)
        shown = [f"{key} {logs[key]:.4g}" for key in LINE if key in logs]
        if shown:
            self.training_bar.write(f"rollout {state.epoch:g}: " + ", ".join(shown))


class RolloutBar:
    """
    A bar over the denoising steps of a rollout, gone when it is done.

    Args:
        num_steps (`int`):
            Denoising steps of all its batches.
        title (`str`):
            Shown before the bar.
        enabled (`bool`):
            False hides the bar.
    """

    def __init__(self, num_steps: int, title: str, enabled: bool):
        self.title = title
        self.bar = tqdm(disable=True)
        with describing("The progress bar"):
            self.bar = tqdm(
                total=num_steps, desc=self.title, unit="step", leave=False, disable=not enabled, dynamic_ncols=True
            )

    def __enter__(self) -> RolloutBar:
        return self

    @described_as("The progress bar")
    def __exit__(self, *error: object) -> None:
        self.bar.close()

    @described_as("The progress bar")
    def on_step(self) -> None:
        """Count a step."""
        self.bar.update()

    @described_as("The progress bar")
    def on_reward(self, mean: float) -> None:
        """Show the mean reward of a batch."""
        self.bar.set_description(self.title, refresh=False)
        self.bar.set_postfix({"reward": f"{mean:.4g}"})

    @described_as("The progress bar")
    def on_wait(self, names: Sequence[str], seconds: float) -> None:
        """Show which rewards are still running, if they take long."""
        if seconds >= SLOW_SECONDS and names:
            self.bar.set_description(f"{self.title}, waiting for {', '.join(names)} ({seconds:.0f} s)")
