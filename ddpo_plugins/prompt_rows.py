"""The contract of prompt sets: rows with a prompt, all with the same keys. And which images have the same prompt."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import PluginError
from .names import REWARD_ARGUMENTS
from .values import shown

MAX_ROWS = 1_000_000  #: of a prompt set, so that one that never ends is found

_WANTED = 'It must return rows such as [{"prompt": "a cat"}].'


def check_rows(returned: Any) -> list[dict[str, Any]]:
    """
    Return the rows of a prompt set, as `PromptSetSpec.rows` returned them.

    Raises:
        [`PluginError`]: they are no rows with a prompt, or do not end. The message begins with the place.
    """
    if inspect.iscoroutine(returned):
        returned.close()  # or Python warns that it was never awaited
        raise PluginError(f"`rows` is an async function. {_WANTED} Write `def`.")
    if not isinstance(returned, Iterable) or isinstance(returned, str | Mapping):
        raise PluginError(f"`rows` returned {shown(returned)}. {_WANTED}")
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(returned):
        if number == MAX_ROWS:
            raise PluginError(f"`rows` returned more than {MAX_ROWS} rows. Does its iterable end?")
        rows.append(_check_row(number, row, rows[0] if rows else None))
    if not rows:
        raise PluginError(f"`rows` returned no row. {_WANTED}")
    return rows


def _check_row(number: int, row: Any, first: Mapping[str, Any] | None) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise PluginError(f"row {number} is {shown(row)} ({type(row).__name__}), no dictionary. {_WANTED}")
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise PluginError(
            f"row {number} has the prompt {shown(prompt)}; every row needs one that is a text and not empty."
        )
    taken = [name for name in row if name in REWARD_ARGUMENTS or not isinstance(name, str)]
    if taken:
        raise PluginError(
            f"row {number} has the column {taken[0]!r}; columns are texts, and rewards have own arguments "
            f"{', '.join(REWARD_ARGUMENTS)}. Rename it."
        )
    if first is not None and row.keys() != first.keys():
        raise PluginError(
            f"row {number} has the columns {', '.join(row)}, and row 0 has {', '.join(first)}; all rows must have the same. "
            "Give None where a value is missing."
        )
    return dict(row)


def images_of(prompts: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of each prompt's images, from the prompt of each image."""
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    return rows
