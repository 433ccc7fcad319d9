"""Prompts by name: a plugin's set, a file, or a dataset on the Hub."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, load_dataset

from ddpo_plugins import Catalogue

from ..errors import ConfigError
from ..plugins import prompts_from_plugin
from ..rollouts.datasets import check_prompts


def load_prompts(source: str, catalogue: Catalogue) -> Dataset:
    """
    Load prompts.

    Args:
        source (`str`):
            Name of a prompt set, path of a text file with one prompt per line (empty lines are skipped), or id of a Hub
            dataset whose split `train` has a column `prompt`.
        catalogue ([`Catalogue`]):
            Installed plugins.

    Raises:
        [`UnknownNameError`]: no set and no file has this name.
        [`ConfigError`]: the file or dataset holds no prompts.
    """
    if source in catalogue.prompt_sets:
        dataset = prompts_from_plugin(source, catalogue)
    elif Path(source).is_file():
        dataset = _from_file(Path(source))
    elif "/" in source and Path(source).suffix != ".txt":
        dataset = _from_hub(source)
    else:
        return prompts_from_plugin(source, catalogue)  # raises an error that names the available sets
    check_prompts(dataset, f"--prompts {source}")
    return dataset


def _from_file(file: Path) -> Dataset:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The prompts in {file} cannot be read: {error}. Give a UTF-8 text file with one prompt per line."
        ) from error
    return Dataset.from_dict({"prompt": [line.strip() for line in lines if line.strip()]})


def _from_hub(name: str) -> Dataset:
    try:
        return load_dataset(name, split="train")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"No dataset could be loaded from {name!r}: {error}. Give a prompt set, a text file that exists, or the id of a "
            "Hub dataset with a split 'train'."
        ) from error
