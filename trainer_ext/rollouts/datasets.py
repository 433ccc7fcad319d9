"""Prompts as datasets, and the batches that the trainer draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers.trainer_utils import IntervalStrategy

from ddpo_plugins.names import REWARD_ARGUMENTS

from ..columns import first_without_text
from ..config import DDPOConfig
from ..errors import ConfigError
from ..file_names import as_file_name
from ..learning.algorithm import Algorithm
from ..learning.algorithms import check_groups
from ..loop.stopping import evaluation_rules
from ..scoring.judges import Judges

HELD_OUT = "Give held-out rewards in eval_reward_funcs."
SEVERAL_IMAGES = "Set eval_images_per_prompt to 2 or more."
#: What makes evaluations measure a metric that not all have, by its last word.
ADDED_BY = {
    "gold": HELD_OUT,
    "disagreement": HELD_OUT,
    "diversity": SEVERAL_IMAGES,
    "diversity_min": SEVERAL_IMAGES,
    "collapsed": SEVERAL_IMAGES,
    "kl": "With all weights trained, the model before training is kept only if beta is above 0.",
}

LONGEST_NAME = 200  # of a dataset's folder, in bytes; file systems take 255

TABLES = ("arrow", "pandas", "polars")  #: formats of datasets whose rows are no mappings


def check_prompts(dataset: Any, name: str) -> Dataset:
    """
    Check that images can be sampled for a dataset, and return it with rows that are mappings of all its columns.

    Raises:
        [`ConfigError`]: it is no `datasets.Dataset`, or has no rows, no `prompt` column, or an empty prompt; or a column has the
            name of an argument of rewards.
    """
    if not isinstance(dataset, Dataset):
        example = "with a column 'prompt', for example Dataset.from_dict({'prompt': ['a cat', 'a dog']})"
        if isinstance(dataset, dict) and dataset:
            example = f"such as {name}[{next(iter(dataset))!r}]"
        raise ConfigError(f"{name} is a {type(dataset).__name__}; give a datasets.Dataset {example}.")
    dataset = _with_all_columns(dataset)
    if "prompt" not in dataset.column_names:
        raise ConfigError(
            f"{name} has no column 'prompt'; its columns are {', '.join(dataset.column_names) or 'none'}. Rename the column "
            "that holds the prompts: dataset.rename_column('text', 'prompt')."
        )
    taken = [column for column in dataset.column_names if column in REWARD_ARGUMENTS]
    if taken:
        raise ConfigError(
            f"{name} has the column {taken[0]!r}, and rewards have an argument of this name, which would hide it. Rename the "
            f"column: dataset.rename_column({taken[0]!r}, 'my_{taken[0]}')."
        )
    if not len(dataset):
        raise ConfigError(f"{name} is empty; it needs at least one row with a prompt.")
    row = first_without_text(dataset, "prompt")
    if row is not None:
        prompt = dataset["prompt"][row]
        raise ConfigError(
            f"{name} has {prompt!r} as the prompt of row {row}; every prompt must be a text that is not empty."
        )
    return dataset


def _with_all_columns(dataset: Dataset) -> Dataset:
    """Show columns that a format hides, and read tables as rows. A transform of the user's own stays."""
    kind, kwargs = dataset.format["type"], dataset.format["format_kwargs"]
    if kind == "custom":
        return dataset
    return dataset.with_format(None if kind in TABLES else kind, **({} if kind in TABLES else kwargs))


def check_datasets(
    train_dataset: Any, eval_dataset: Any, args: DDPOConfig, judges: Judges, algorithm: Algorithm[Any, Any]
) -> tuple[Dataset, Dataset | dict[str, Dataset] | None]:
    """
    Check the datasets of a run, and the metrics of evaluations that choose a checkpoint or end the run; return the datasets.

    Raises:
        [`ConfigError`]: as [`check_prompts`] and [`check_groups`], or evaluation has no such metric.
    """
    trained = check_prompts(train_dataset, "train_dataset")
    check_groups(algorithm, args, trained["prompt"])
    several = isinstance(eval_dataset, dict)
    given = eval_dataset if several else {"": eval_dataset} if eval_dataset is not None else {}
    evaluated = {
        name: check_prompts(dataset, f"eval_dataset[{name!r}]" if several else "eval_dataset")
        for name, dataset in given.items()
    }
    _check_names(evaluated)
    prefixes = [f"eval_{name}_" if several else "eval_" for name in evaluated]
    metrics = [f"{prefix}{name}" for prefix in prefixes for name in judges.evaluated_metrics(args)]
    if evaluated and args.metric_for_best_model is not None:
        _check_best_metric(args.metric_for_best_model, metrics)
    _check_rules(args, metrics)
    return trained, evaluated if several else evaluated.get("")


def _check_names(evaluated: Iterable[str]) -> None:
    """Check that a dataset's name can be that of a folder."""
    for name in evaluated:
        if len(as_file_name(name)) > LONGEST_NAME:
            raise ConfigError(
                f"eval_dataset has the name {name[:50]!r}..., which is too long for a folder: it has {len(name)} characters. Use "
                f"at most {LONGEST_NAME} ASCII letters, digits and hyphens; of other letters, a ninth of that."
            )


def _check_best_metric(metric: str, metrics: Sequence[str]) -> None:
    if metric.removeprefix("eval_") not in [name.removeprefix("eval_") for name in metrics]:
        raise ConfigError(
            f"metric_for_best_model is {metric!r}, which no evaluation measures; it must be one of "
            f"{', '.join(name.removeprefix('eval_') for name in metrics)}.{_what_adds(metric)}"
        )


def _check_rules(args: DDPOConfig, metrics: Sequence[str]) -> None:
    """Check the rules of `stop_when` that name a metric of evaluations."""
    runs = bool(metrics) and (args.eval_strategy != IntervalStrategy.NO or args.eval_on_start)
    for rule in evaluation_rules(args.stop_when or ()):
        if not runs:
            raise ConfigError(
                f"stop_when has {rule.text!r}, and no evaluation runs. Give eval_dataset (--eval_prompts), and an eval_strategy "
                "such as 'epoch'."
            )
        if rule.name not in metrics:
            raise ConfigError(
                f"stop_when has {rule.text!r}, and no evaluation measures {rule.name!r}; it must be one of "
                f"{', '.join(metrics)}.{_what_adds(rule.name)}"
            )


def check_measured(args: DDPOConfig, expected: Sequence[str], metrics: Mapping[str, float]) -> None:
    """
    Check, after an evaluation, that it could measure what this run needs.

    Args:
        args ([`DDPOConfig`]):
            The run's options.
        expected (`Sequence[str]`):
            Metrics that such an evaluation can have.
        metrics (`Mapping[str, float]`):
            Metrics that it has.

    Raises:
        [`ConfigError`]: one is missing, or NaN, that a rule of `stop_when`, or the choice of the best checkpoint, compares.
    """
    best = f"eval_{(args.metric_for_best_model or '').removeprefix('eval_')}"
    rules = {rule.name: "stop_when" for rule in evaluation_rules(args.stop_when or ())}
    needed = {best: "metric_for_best_model", **rules}
    for name in expected:
        if name in needed and math.isnan(metrics.get(name, math.nan)):
            reason = _why_unmeasured(args, name, name in metrics)
            raise ConfigError(f"{needed[name]} needs {name!r}, which cannot be measured: {reason}")


def _why_unmeasured(args: DDPOConfig, name: str, is_nan: bool) -> str:
    if is_nan:
        return (
            "it is NaN, because no evaluated image has such a value, or no held-out reward tells the images of the model "
            "before training apart. Evaluate other rewards (eval_reward_funcs) or prompts, or use other metrics."
        )
    if name.endswith("kl"):
        return "no denoising step of this sampler has a log-probability. Use other metrics."
    return (
        f"{args.output_dir} has no evaluation of the model before training on these prompts, by these rewards. Resume in the "
        "run's own folder, with its prompts and rewards."
    )


def _what_adds(metric: str) -> str:
    """Return a sentence that says which option makes evaluations measure a metric, if one does."""
    return next((f" {sentence}" for ending, sentence in ADDED_BY.items() if metric.endswith(ending)), "")


def position_batches(args: DDPOConfig) -> DataLoader[int]:
    """
    Return batches `{"positions": (b,)}` for the training on one rollout.

    A position counts this process's images, in their shuffled order, through all passes over the rollout.
    """
    return DataLoader(
        range(args.images_per_process * args.num_inner_epochs),  # type: ignore[arg-type]
        batch_size=args.per_device_train_batch_size,
        collate_fn=lambda batch: {"positions": torch.tensor(batch)},
        generator=torch.Generator(),  # or each pass draws a seed from the global one, and a resumed pass draws a different one
    )
