"""Progress bars: one for the run with the reward beside it, one for the rollout in progress."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments

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
    "seconds/training",
)


class RolloutProgress(ProgressCallback):
    """`Trainer`'s bar over updates, with the reward in the postfix and one short line for each log."""

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
        self.training_bar.set_postfix({key: f"{logs[key]:.4g}" for key in POSTFIX if key in logs})
        shown = [f"{key} {logs[key]:.4g}" for key in LINE if key in logs]
        if shown:
            self.training_bar.write(f"rollout {state.epoch:g}: " + ", ".join(shown))


def rollout_bar(num_steps: int, index: int, enabled: bool) -> tqdm:  # type: ignore[type-arg]
    """Return a bar over the denoising steps of a rollout, gone when it is done."""
    return tqdm(
        total=num_steps, desc=f"rollout {index}", unit="step", leave=False, disable=not enabled, dynamic_ncols=True
    )
