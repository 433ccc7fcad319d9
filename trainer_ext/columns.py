"""Columns of datasets as Arrow holds them: a million rows are looked at without making a Python object of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from datasets import Dataset


def values_of(dataset: Dataset, name: str) -> list[Any]:
    """Return the values of a column; if the dataset has a transform of the user's own, what that makes of them."""
    return list(dataset[name]) if is_transformed(dataset) else column_of(dataset, name).to_pylist()


def column_of(dataset: Dataset, name: str) -> pa.ChunkedArray:
    """Return a column; if the dataset has a transform of the user's own, what that makes of it, which must be of one type."""
    if is_transformed(dataset):
        return pa.chunked_array([pa.array(list(dataset[name]))])
    column, chosen = dataset.data.column(name), dataset._indices
    return column if chosen is None else column.take(chosen.column(0))  # `datasets` would gather the rows one by one


def is_transformed(dataset: Dataset) -> bool:
    """Return whether a dataset's rows are made by a function of the user's own."""
    return bool(dataset.format["type"] == "custom")


def first_without_text(dataset: Dataset, name: str) -> int | None:
    """Return the first row whose value in a column is no text, or has nothing but spaces; `None` if all have one."""
    if is_transformed(dataset):  # whose values may be of any types
        texts = enumerate(dataset[name])
        return next((row for row, text in texts if not isinstance(text, str) or not text.strip()), None)
    column = column_of(dataset, name)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return 0
    empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0)
    row = int(pc.index(pc.fill_null(empty, True), True).as_py())
    return None if row < 0 else row


def rows_with_different(dataset: Dataset, name: str, number: int) -> list[int]:
    """Return the first rows with `number` different values of a column, at even distances; with all if there are fewer."""
    column = column_of(dataset, name)
    values = column.unique()
    number = min(number, len(values))
    return [int(pc.index(column, values[index * len(values) // number]).as_py()) for index in range(number)]
