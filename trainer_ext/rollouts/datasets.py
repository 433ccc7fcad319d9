"""Prompts as datasets."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from ..errors import ConfigError


def check_prompts(dataset: Any, name: str) -> Dataset:
    """
    Return `dataset`, unless it cannot be rolled out.

    Raises:
        [`ConfigError`]: no `datasets.Dataset`, no rows, no `prompt` column, or an empty prompt.
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
    Return what is trained on, unless that or what is evaluated on cannot be rolled out.

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
