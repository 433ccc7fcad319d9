"""Writes the records of images as Parquet files, which have one schema over the whole run."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ddpo_plugins.errors import RewardError
from ddpo_plugins.names import record_type

from .atomic import replacing

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]  #: the values that are recorded for one image

_SCHEMAS: dict[pa.Schema, pa.Schema] = {}  # one object for each schema, because most files have the same
_NAMED: set[tuple[Path, int | None, int | None]] = set()  # damaged files, with size and time, that were warned about

_ONE_TYPE = (
    "A column that a reward or detector logs with log_extra has one type in the whole run, on all processes: give it another "
    "name, or log the type that it had."
)

TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}


def write_records(file: Path, records: Sequence[Record]) -> None:
    """
    Write the records of images.

    All files beside it whose names differ only in their number are given the same schema, so that they can be read together:
    those that lack a column, or have it without a type because all of its values were missing, are written again.

    Raises:
        [`RewardError`]: a column has values of another type than in the other files; the message names it.
    """
    table = _table(records)
    others = {other: old for other in files_beside(file) if (old := _schema_of(other)) is not None}
    schema = _common_schema(file, [*dict.fromkeys(others.values()), table.schema])
    for other, old in others.items():
        if old != schema and (read := read_records(other)) is not None:
            _write(other, read, schema)
    _write(file, table, schema)


def read_records(file: Path, columns: Sequence[str] | None = None) -> pa.Table | None:
    """Return the records in a file; None, with a warning, if it cannot be read."""
    try:
        return pq.read_table(file, columns=columns)
    except (pa.ArrowException, OSError, KeyError) as error:
        _warn(file, error)
        return None


def numbered(folder: Path, prefix: str, suffix: str = ".parquet") -> dict[int, Path]:
    """Return the files whose names are `prefix`, a number and `suffix`, by their numbers, in order. Other files are ignored."""
    name = re.compile(f"{re.escape(prefix)}([0-9]+){re.escape(suffix)}")
    matches = ((name.fullmatch(file.name), file) for file in folder.glob(f"{prefix}*{suffix}"))
    return dict(sorted((int(match[1]), file) for match, file in matches if match is not None))


def remove_from(folder: Path, prefix: str, number: int) -> None:
    """Remove records and pictures, one or a folder of them, whose names are `prefix` and this number or a higher one."""
    for suffix in (".parquet", ".png", ""):
        for found, path in numbered(folder, prefix, suffix).items():
            if found >= number:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def files_beside(file: Path) -> Iterator[Path]:
    """Yield the other files of a series, whose names differ from this one's in their number."""
    prefix = file.stem.rstrip("0123456789")
    yield from (other for other in numbered(file.parent, prefix, file.suffix).values() if other != file)


def _table(records: Sequence[Record]) -> pa.Table:
    """Return records as a table, with the type of each column of the trainer. Some processes may have logged more columns."""
    names = dict.fromkeys(name for record in records for name in record)
    return pa.table({name: _column(name, [record.get(name) for record in records]) for name in names})


def _column(name: str, values: Sequence[Any]) -> pa.Array:
    kind = record_type(name)
    try:
        return pa.array(values, None if kind is None else TYPES[kind])
    except pa.ArrowException as error:  # processes log different types, each of which is one in its process
        raise RewardError(f"The column {name!r} cannot be recorded: {error}. {_ONE_TYPE}") from error


def _common_schema(file: Path, schemas: Sequence[pa.Schema]) -> pa.Schema:
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise RewardError(
            f"{file.name} cannot be recorded beside the other files of the run: {error}. {_ONE_TYPE}"
        ) from error


def _write(file: Path, table: pa.Table, schema: pa.Schema) -> None:
    whole = pa.concat_tables([schema.empty_table(), table], promote_options="permissive")
    with replacing(file) as place:
        pq.write_table(whole, place)


def _schema_of(file: Path) -> pa.Schema | None:
    about = file.stat()
    return _read_schema(file, about.st_size, about.st_mtime_ns)


@cache
def _read_schema(file: Path, size: int, modified: int) -> pa.Schema | None:
    """Return the schema of a file as it was at that time; None, with a warning, if it cannot be read."""
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        _warn(file, error)
        return None
    return _SCHEMAS.setdefault(schema, schema)


def _warn(file: Path, error: Exception) -> None:
    """Say that a file cannot be read: once, as long as it is not written again, however often it is read."""
    about = file.stat() if file.exists() else None
    state = (file, about and about.st_size, about and about.st_mtime_ns)
    if state not in _NAMED:
        _NAMED.add(state)
        logger.warning(
            "%s cannot be read and is left out (%s: %s). Remove it; training is not affected.",
            file,
            type(error).__name__,
            error,
        )
