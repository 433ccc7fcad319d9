"""The evaluation of the model before training, with which all later ones are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from .evaluation import Evaluator


class BaseEvaluationCallback(TrainerCallback):
    """
    Evaluates the model before training, so that later evaluations can be compared with it.

    Args:
        evaluator ([`Evaluator`]):
            Evaluates the run.
        evaluate (`Callable[[], Any]`):
            Evaluates the run's own datasets, and logs the metrics.
    """

    def __init__(self, evaluator: Evaluator, evaluate: Callable[[], Any]):
        self.evaluator = evaluator
        self.evaluate = evaluate

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate, unless the run goes on from a checkpoint, or `eval_on_start` will do it."""
        if state.global_step or any(is_evaluation(log) for log in state.log_history):
            return
        self.evaluator.forget()
        if self.evaluator.datasets and args.eval_strategy != IntervalStrategy.NO and not args.eval_on_start:
            self.evaluate()


def is_evaluation(log: Mapping[str, Any]) -> bool:
    """Return whether a log is that of an evaluation."""
    return any(name.startswith("eval_") for name in log)
