"""Prompts as datasets, and the batches that the trainer draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers.trainer_utils import SaveStrategy

from ddpo_plugins.names import REWARD_ARGUMENTS

from ..config import DDPOConfig
from ..errors import ConfigError
from ..scoring.judges import Judges

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
    for index, prompt in enumerate(dataset["prompt"]):
        if not isinstance(prompt, str) or not prompt.strip():
            raise ConfigError(
                f"{name} has {prompt!r} as the prompt of row {index}; every prompt must be a text that is not empty."
            )
    return dataset


def _with_all_columns(dataset: Dataset) -> Dataset:
    """Show columns that a format hides, and read tables as rows. A transform of the user's own stays."""
    kind, kwargs = dataset.format["type"], dataset.format["format_kwargs"]
    if kind == "custom":
        return dataset
    return dataset.with_format(None if kind in TABLES else kind, **({} if kind in TABLES else kwargs))


def check_datasets(
    train_dataset: Any, eval_dataset: Any, args: DDPOConfig, judges: Judges
) -> tuple[Dataset, Dataset | dict[str, Dataset] | None]:
    """
    Check the datasets of a run, and the metric by which evaluation chooses a checkpoint, and return the datasets.

    Raises:
        [`ConfigError`]: as [`check_prompts`], or evaluation has no such metric.
    """
    trained = check_prompts(train_dataset, "train_dataset")
    several = isinstance(eval_dataset, dict)
    given = eval_dataset if several else {"": eval_dataset} if eval_dataset is not None else {}
    evaluated = {
        name: check_prompts(dataset, f"eval_dataset[{name!r}]" if several else "eval_dataset")
        for name, dataset in given.items()
    }
    if evaluated and (args.load_best_model_at_end or args.save_strategy == SaveStrategy.BEST):
        _check_best_metric(args.metric_for_best_model or "reward", [f"{name}_" * several for name in evaluated], judges)
    return trained, evaluated if several else evaluated.get("")


def _check_best_metric(metric: str, prefixes: Sequence[str], judges: Judges) -> None:
    metrics = [f"{prefix}{name}" for prefix in prefixes for name in judges.evaluated_metrics]
    if metric.removeprefix("eval_") not in metrics:
        raise ConfigError(
            f"metric_for_best_model is {metric!r}, which no evaluation measures; it must be one of {', '.join(metrics)}."
        )


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
