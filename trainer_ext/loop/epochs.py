"""When a run logs, evaluates and saves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from transformers import DefaultFlowCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler
from transformers.trainer_utils import IntervalStrategy, SaveStrategy


@contextlib.contextmanager
def steps_as_given(state: TrainerState, args: TrainingArguments) -> Iterator[None]:
    """
    Context manager in which the state has the intervals of logs, evaluations and checkpoints as they were given.

    A checkpoint that is written in it can be compared with the options of the run that resumes. `Trainer` computes a share of
    the run (`save_steps=0.1`) into updates, and would find another value each time.
    """
    names = ("logging_steps", "eval_steps", "save_steps")
    computed = {name: getattr(state, name) for name in names}
    given = {name: getattr(args, name) for name in names}
    vars(state).update({name: value for name, value in given.items() if value is not None})
    try:
        yield
    finally:
        vars(state).update(computed)


class EpochOnLastUpdate(DefaultFlowCallback):
    """
    Acts on the strategies `"epoch"` with the last update on a rollout instead of after it.

    Everything that belongs to an update is then done before its checkpoint is written. With `Trainer`'s own order, a run
    that is killed between the checkpoint and the end of the epoch would never have that epoch's log.

    Args:
        updates_per_rollout (`int`):
            Updates of an epoch.
    """

    def __init__(self, updates_per_rollout: int):
        self.updates_per_rollout = updates_per_rollout

    def replace_default(self, handler: CallbackHandler) -> None:
        """Replace `Trainer`'s own callback, and run before all others, which may overrule it."""
        handler.remove_callback(DefaultFlowCallback)
        handler.callbacks.insert(0, self)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Compute when to log, evaluate and save from the options of this run, not from those of a checkpoint."""
        state.compute_steps(args, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> TrainerControl:
        """Decide whether to log, evaluate and save after an update."""
        control = super().on_step_end(args, state, control, **kwargs)
        last = state.global_step >= state.max_steps
        if last and args.eval_strategy != IntervalStrategy.NO:
            control.should_evaluate = True  # or nothing would be said of the result
        if last or state.global_step % self.updates_per_rollout == 0:
            control.should_log |= args.logging_strategy == IntervalStrategy.EPOCH
            control.should_evaluate |= args.eval_strategy == IntervalStrategy.EPOCH and args.eval_delay <= state.epoch
            control.should_save |= args.save_strategy == SaveStrategy.EPOCH
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> TrainerControl:
        """Do nothing: `on_step_end` has already acted."""
        return control
