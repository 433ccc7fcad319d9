"""What a run does with its evaluations: the first is made before training, and rules on their metrics end the run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from ..loop.stopping import evaluation_rules, is_evaluation
from .evaluation import Evaluator

logger = logging.getLogger(__name__)


class EvaluationCallback(TrainerCallback):
    """
    Evaluates the model before training, so that later evaluations can be compared with it, and ends the run by rules.

    Args:
        evaluator ([`Evaluator`]):
            Evaluates the run.
        evaluate (`Callable[[], Any]`):
            Evaluates the run's own datasets, and logs the metrics.
    """

    def __init__(self, evaluator: Evaluator, evaluate: Callable[[], Any]):
        self.evaluator = evaluator
        self.evaluate = evaluate
        self.rules = evaluation_rules(evaluator.args.stop_when or ())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate, unless the run goes on from a checkpoint, or `eval_on_start` will do it."""
        self.evaluator.forget()
        if state.global_step or any(is_evaluation(log) for log in state.log_history):
            return
        if self.evaluator.datasets and args.eval_strategy != IntervalStrategy.NO and not args.eval_on_start:
            self.evaluate()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End the run after this update, with a checkpoint, if its metrics meet a rule. The model before training meets none."""
        met = [rule for rule in self.rules if rule.is_met(kwargs["metrics"])] if state.global_step else []
        if not met or control.should_training_stop:
            return
        control.should_training_stop = control.should_save = True
        if state.is_world_process_zero:
            logger.warning(
                "The evaluation after %d update(s) meets stop_when %r: it is %.4g. Training ends here, with a checkpoint.",
                state.global_step,
                met[0].text,
                met[0].value(kwargs["metrics"]),
            )
