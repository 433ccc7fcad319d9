"""Prompts by name: a plugin's set, a file, or a dataset on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError

from ddpo_plugins import Catalogue

from ..errors import ConfigError
from ..plugins import prompts_from_plugin
from ..rollouts.datasets import check_prompts

#: How files of rows are read, by ending. Each has a column `prompt`; the other columns are passed to rewards.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
}

FORMS = (
    "Give a UTF-8 text file with one prompt per line, or rows with a column 'prompt' in a file that ends in "
    f"{', '.join(ROWS)}."
)


def load_prompts(source: str, catalogue: Catalogue) -> Dataset:
    """
    Load prompts.

    Args:
        source (`str`):
            Name of a prompt set; path of a text file with one prompt per line (empty lines are skipped), or of a file of rows
            with a column `prompt` (`.csv`, `.tsv`, `.json`, `.jsonl`, `.parquet`); or a folder or id of a Hub dataset whose
            split `train` has a column `prompt`.
        catalogue ([`Catalogue`]):
            Installed plugins.

    Raises:
        [`UnknownNameError`]: no set has this name, and it is no file's.
        [`ConfigError`]: there is no such file, or the file or dataset holds no prompts.
    """
    file = Path(source).expanduser()
    if source in catalogue.prompt_sets:
        dataset = prompts_from_plugin(source, catalogue)
    elif file.is_file():
        dataset = _from_rows(file) if file.suffix.lower() in ROWS else _from_lines(file)
    elif file.suffix.lower() in (".txt", *ROWS) or source.startswith(("/", "./", "../", "~")):
        raise ConfigError(f"--prompts {source}: there is no such file ({file.absolute()}). {FORMS}")
    elif "/" in source or file.is_dir():
        dataset = _from_hub(source)
    else:
        return prompts_from_plugin(source, catalogue)  # raises an error that names the available sets
    return check_prompts(dataset, f"--prompts {source}")


def _from_lines(file: Path) -> Dataset:
    try:
        with file.open(encoding="utf-8-sig") as lines:  # Windows begins a text file with a mark
            return Dataset.from_dict({"prompt": [line.strip() for line in lines if line.strip()]})
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The prompts in {file} cannot be read: {error}. {FORMS}") from error


def _from_rows(file: Path) -> Dataset:
    kind, options = ROWS[file.suffix.lower()]
    try:
        return load_dataset(kind, data_files=str(file), split="train", **options)
    except (OSError, ValueError, DatasetsError, StopIteration) as error:
        cause = error.__cause__ or error
        raise ConfigError(f"The rows in {file} cannot be read: {type(cause).__name__}: {cause}. {FORMS}") from error


def _from_hub(name: str) -> Dataset:
    try:
        return load_dataset(name, split="train")
    except (OSError, ValueError, DatasetsError) as error:
        raise ConfigError(
            f"No dataset could be loaded from {name!r}: {error}. Give a prompt set, a file that exists, or the id of a Hub "
            "dataset with a split 'train'."
        ) from error
