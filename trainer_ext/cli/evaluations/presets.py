"""The evaluation that a preset names, as far as it fits a run whose other options the user gave."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers.trainer_utils import IntervalStrategy

from ..options import RunOptions

if TYPE_CHECKING:
    from datasets import Dataset

    from ...config import DDPOConfig

logger = logging.getLogger(__name__)


def fit_evaluation(
    options: RunOptions,
    config: DDPOConfig,
    preset: Mapping[str, Any],
    train_dataset: Dataset,
    evaluated: Mapping[str, Dataset],
) -> tuple[list[str], dict[str, Dataset]]:
    """
    Leave out what came from the preset and does not fit; what the user gave stays as it is, and may be refused.

    That is a held-out reward that is now trained on; and beside prompts of the user, those of the preset that lack a column of
    theirs, because the rewards may need it. If no prompts are left, the preset's evaluation does not run.

    Args:
        options ([`RunOptions`]), config ([`DDPOConfig`]):
            The options of the run; `eval_strategy` is changed if no evaluation can run.
        preset (`Mapping[str, Any]`):
            The options that the preset set.
        train_dataset (`datasets.Dataset`):
            The training prompts.
        evaluated (`Mapping[str, Dataset]`):
            Prompts of the evaluation by name.

    Returns:
        `tuple[list[str], dict[str, Dataset]]`: names of the held-out rewards, and the prompts.
    """
    held_out, fitting = list(options.eval_reward_funcs or ()), dict(evaluated)
    rewards_of_preset = held_out == preset.get("eval_reward_funcs")
    if rewards_of_preset:
        held_out = [name for name in held_out if name not in (options.reward_funcs or ())]
    if options.eval_prompts == preset.get("eval_prompts") and options.prompts != preset.get("prompts"):
        fitting = _with_columns(train_dataset.column_names, evaluated, options.prompts)
    if not fitting and config.eval_strategy == preset.get("eval_strategy"):
        config.eval_strategy = IntervalStrategy.NO
    runs = config.eval_strategy != IntervalStrategy.NO or config.eval_on_start
    return held_out if runs or not rewards_of_preset else [], fitting  # else models would be loaded for nothing


def _with_columns(columns: Sequence[str], evaluated: Mapping[str, Dataset], prompts: str) -> dict[str, Dataset]:
    fitting = {}
    for name, dataset in evaluated.items():
        missing = [repr(column) for column in columns if column not in dataset.column_names]
        if missing:
            logger.warning(
                "The prompts %s of the preset's evaluation are left out: they lack %s, which --prompts %s has. Give others with "
                "--eval_prompts.",
                name,
                " and ".join(missing),
                prompts,
            )
        else:
            fitting[name] = dataset
    return fitting
