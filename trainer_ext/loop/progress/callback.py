"""Tells the view of a run what happens in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_utils import IntervalStrategy

from ddpo_plugins.names import FIXED_SAMPLES

from ..describing import described_as
from .remaining import EVALUATIONS, PICTURES, UPDATES, Pace
from .rows import Row, duration
from .views import PlainView, View, choose_view

if TYPE_CHECKING:
    from ...config import DDPOConfig

WHAT = "The display of progress"


class RolloutProgress(TrainerCallback):
    """
    Shows a bar over updates with the time that is left, and one row for each rollout.

    Args:
        args ([`DDPOConfig`]):
            The run's options.
    """

    def __init__(self, args: DDPOConfig):
        self.updates_per_rollout = args.updates_per_rollout
        pictures = {PICTURES: args.sample_every * args.updates_per_rollout} if args.num_sample_images else {}
        self._intervals = {UPDATES: 1, **pictures}
        self._bars = not args.disable_tqdm
        self._view: View = PlainView()
        self._pace = Pace(self._intervals, 0, 0)
        self._row: Row | None = None
        self._fixed: list[float] = []

    @classmethod
    def replace_default(cls, trainer: Trainer, args: DDPOConfig) -> None:
        """Replace what `Trainer` itself shows: a bar, a table in notebooks, or with `disable_tqdm` whole logs."""
        trainer.remove_callback(PrinterCallback if args.disable_tqdm else DEFAULT_PROGRESS_CALLBACK)
        trainer.add_callback(cls(args))

    @described_as(WHAT)
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to show the run. Evaluations and pictures of the model before training come after this."""
        if not state.is_world_process_zero:
            return
        intervals = dict(self._intervals)
        if args.eval_strategy != IntervalStrategy.NO:
            each_rollout = args.eval_strategy == IntervalStrategy.EPOCH
            intervals[EVALUATIONS] = self.updates_per_rollout if each_rollout else int(state.eval_steps or 0)
        self._pace = Pace(intervals, state.global_step, state.max_steps)
        self._row = None
        self._fixed = [log[FIXED_SAMPLES] for log in state.log_history if FIXED_SAMPLES in log][:1]
        self._view = choose_view(self._bars)
        self._view.begin(state.global_step, state.max_steps)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to measure updates."""
        self._pace.start()

    @described_as(WHAT)
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count an update. Time is estimated only after whole rollouts: most of it may be needed before the first update."""
        self._pace.lap(UPDATES, state.global_step)
        if self._is_last_on_rollout(state):
            self._pace.estimate()
        self._move(state)

    @described_as(WHAT)
    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure an evaluation."""
        self._pace.lap(EVALUATIONS, state.global_step)

    @described_as(WHAT)
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show what was logged since the last row, once a rollout."""
        if not state.is_world_process_zero or logs is None:
            return
        if FIXED_SAMPLES in logs:
            self._pace.lap(PICTURES, state.global_step)
            self._fixed.append(logs[FIXED_SAMPLES])
        elif "loss" in logs:
            self._add(logs, (state.global_step - 1) // self.updates_per_rollout)
            if self._is_last_on_rollout(state):
                self._pace.estimate()
                self._show_row()
                self._move(state)

    @described_as(WHAT)
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave only the rows."""
        if state.is_world_process_zero:
            self._show_row()
            self._view.end()

    def _is_last_on_rollout(self, state: TrainerState) -> bool:
        return state.global_step % self.updates_per_rollout == 0 or state.global_step >= state.max_steps

    def _add(self, logs: dict[str, Any], rollout: int) -> None:
        """Add a log to the row that is not yet shown."""
        if self._row is not None and self._row.rollout != rollout:
            self._show_row()
        before = {} if self._row is None else self._row.logs
        self._row = Row(rollout, {**before, **logs})

    def _show_row(self) -> None:
        """Show the row, with the fixed prompts if they were drawn since the last one."""
        if self._row is not None:
            fixed = (self._fixed[0], self._fixed[-1]) if len(self._fixed) > 1 else None
            self._view.row(Row(self._row.rollout, self._row.logs, fixed, self._pace.seconds_left))
            self._row, self._fixed = None, self._fixed[:1]

    def _move(self, state: TrainerState) -> None:
        if state.is_world_process_zero:
            rewards = (log["reward"] for log in reversed(state.log_history) if "reward" in log)
            reward, left = next(rewards, None), self._pace.seconds_left
            known = [
                *([] if reward is None else [f"reward {reward:.4g}"]),
                *([] if left is None else [f"{duration(left)} left"]),
            ]
            self._view.update(state.global_step, ", ".join(known))
