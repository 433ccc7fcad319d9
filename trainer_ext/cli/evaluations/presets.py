"""The evaluation that a preset names, as far as it fits a run whose other options the user gave."""

from __future__ import annotations

import logging
from collections.abc import Mapping
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

    That is a held-out reward that is now trained on, and prompts that lack columns of the training prompts, because the rewards
    may need these. If no prompts are left, the preset's evaluation does not run.

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
    if options.eval_prompts == preset.get("eval_prompts"):
        fitting = {name: data for name, data in evaluated.items() if not _missing(train_dataset, data)}
    if evaluated and not fitting:
        _warn(options, set().union(*(_missing(train_dataset, data) for data in evaluated.values())))
    if not fitting and config.eval_strategy == preset.get("eval_strategy"):
        config.eval_strategy = IntervalStrategy.NO
    runs = config.eval_strategy != IntervalStrategy.NO or config.eval_on_start
    return held_out if runs or not rewards_of_preset else [], fitting  # else models would be loaded for nothing


def _warn(options: RunOptions, missing: set[str]) -> None:
    logger.warning(
        "The preset's evaluation is left out: its prompts (%s) lack %s, which --prompts %s has. Give others with --eval_prompts.",
        ", ".join(options.eval_prompts or ()),
        " and ".join(map(repr, sorted(missing))),
        options.prompts,
    )


def _missing(train_dataset: Dataset, evaluated: Dataset) -> set[str]:
    return set(train_dataset.column_names) - set(evaluated.column_names)
