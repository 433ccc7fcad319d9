"""Prompts as datasets, and the batches that the trainer draws."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from ddpo_plugins.names import REWARD_ARGUMENTS

from ..config import DDPOConfig
from ..errors import ConfigError


def check_prompts(dataset: Any, name: str) -> Dataset:
    """
    Check that images can be sampled for a dataset, and return it.

    Raises:
        [`ConfigError`]: it is no `datasets.Dataset`, or has no rows, no `prompt` column, or an empty prompt; or a column has the
            name of an argument of rewards.
    """
    if not isinstance(dataset, Dataset):
        raise ConfigError(
            f"{name} is a {type(dataset).__name__}; give a datasets.Dataset with a column 'prompt', for example "
            "Dataset.from_dict({'prompt': ['a cat', 'a dog']})."
        )
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


def check_datasets(train_dataset: Any, eval_dataset: Dataset | dict[str, Dataset] | None) -> Dataset:
    """
    Check the datasets of a run, and return the one that is trained on.

    Raises:
        [`ConfigError`]: as [`check_prompts`].
    """
    evaluated = (
        eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset} if eval_dataset is not None else {}
    )
    checked = check_prompts(train_dataset, "train_dataset")
    for name, dataset in evaluated.items():
        check_prompts(dataset, f"eval_dataset[{name!r}]" if name else "eval_dataset")
    return checked


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
