"""Parquet files of images with their records, in the form that `datasets` and the Hub's viewer read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ddpo_plugins.names import DETECTORS, REWARDS

from ..errors import ConfigError
from ..runs.atomic import replacing
from ..runs.records import read_records

ROW_GROUP = 100  #: images that the viewer reads at once
FIRST = ("image", "prompt", "reward", "step", "seed", "moment")
LAST = ("advantage", "rollout")  # before what rewards and detectors logged
LEFT_OUT = ("updates", "rollouts")  # of the fixed samples: `step` says it
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})  #: how `datasets` embeds pictures


@dataclass(frozen=True)
class Source:
    """
    Images with their records.

    Parameters:
        number (`int`):
            Number of the rollout, or of the update.
        records (`Path`):
            The table of the records.
        pictures (`Mapping[int, Path]`):
            Pictures by the index of their record.
        constants (`Mapping[str, Any]`):
            Columns with one value for all images.
    """

    number: int
    records: Path
    pictures: Mapping[int, Path]
    constants: Mapping[str, Any]

    @property
    def num_bytes(self) -> int:
        """Size of the pictures."""
        return sum(picture.stat().st_size for picture in self.pictures.values())

    @property
    def modified(self) -> int:
        """When any of the files was last written, in nanoseconds."""
        return max(file.stat().st_mtime_ns for file in (self.records, *self.pictures.values()))

    def table(self) -> pa.Table:
        """
        Return the images with their records.

        Raises:
            [`ConfigError`]: the records cannot be read, or are fewer.
        """
        records = read_records(self.records)
        if records is None or max(self.pictures) >= len(records):
            raise ConfigError(f"{self.records} cannot be read, or lacks records of images that were kept. Remove them.")
        table = records.take(list(self.pictures)).drop_columns([c for c in LEFT_OUT if c in records.column_names])
        for name, value in self.constants.items():
            table = table.append_column(name, pa.array([value] * len(table)))
        images = [
            {"bytes": file.read_bytes(), "path": f"{self.number:05d}-{index:05d}.png"}
            for index, file in self.pictures.items()
        ]
        return table.append_column("image", pa.array(images, IMAGE))


@dataclass(frozen=True)
class Shard:
    """
    A file of the dataset.

    Parameters:
        name (`str`):
            Its path in the repository.
        sources (`Sequence[Source]`):
            Its images.
        interleaved (`bool`):
            Whether the first images of all sources come first, then the second ones, and so on.
    """

    name: str
    sources: Sequence[Source]
    interleaved: bool = False

    @property
    def num_rows(self) -> int:
        """Number of images."""
        return sum(len(source.pictures) for source in self.sources)

    def write(self, folder: Path, records: pa.Schema) -> Path:
        """
        Write the file, unless it is there and newer than the images; return its place.

        Args:
            folder (`Path`):
                The folder to write to.
            records (`pa.Schema`):
                The columns of the records of all shards; see [`common_schema`].
        """
        file = folder / self.name
        columns = _ordered(["image", *records.names, *self.sources[0].constants])
        if self._is_current(file, columns):
            return file
        tables = [records.empty_table(), *(source.table() for source in self.sources)]
        table = pa.concat_tables(tables, promote_options="permissive").select(columns)
        if self.interleaved:
            table = table.take([row for rows in self._rows_by_rank() for row in rows])
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as place:
            # Chunks that depend on the content, and an index of pages: as `datasets` writes them, for partial uploads and reads.
            pq.write_table(
                _with_features(table),
                place,
                row_group_size=ROW_GROUP,
                use_content_defined_chunking=True,
                write_page_index=True,
            )
        return file

    def _is_current(self, file: Path, columns: Sequence[str]) -> bool:
        if not file.is_file() or file.stat().st_mtime_ns <= max(source.modified for source in self.sources):
            return False
        with pq.ParquetFile(file) as written:
            return written.metadata.num_rows == self.num_rows and written.schema_arrow.names == list(columns)

    def _rows_by_rank(self) -> list[list[int]]:
        """Return the rows of the first images of all sources, then of the second ones, and so on."""
        starts = [sum(len(source.pictures) for source in self.sources[:i]) for i in range(len(self.sources))]
        longest = max(len(source.pictures) for source in self.sources)
        return [
            [start + rank for start, source in zip(starts, self.sources, strict=True) if rank < len(source.pictures)]
            for rank in range(longest)
        ]


def common_schema(shards: Sequence[Shard]) -> pa.Schema:
    """Return the columns of all records, so that shards that were written at different times can be read together."""
    schemas = [pq.read_schema(source.records) for shard in shards for source in shard.sources]
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    return pa.schema([column for column in schema if column.name not in LEFT_OUT])


def _ordered(names: Sequence[str]) -> list[str]:
    groups = (
        [name for name in FIRST if name in names],
        [name for name in names if name.startswith(REWARDS)],
        [name for name in names if name.startswith(DETECTORS)],
        [name for name in LAST if name in names],
    )
    known = [name for group in groups for name in group]
    return [*known, *(name for name in names if name not in known)]


def _with_features(table: pa.Table) -> pa.Table:
    """Return a table that says which of its columns holds pictures."""
    from datasets import Features, Image  # a second

    others = Features.from_arrow_schema(table.drop_columns(["image"]).schema)
    schema = Features({"image": Image(), **others}).arrow_schema
    return table.cast(schema).replace_schema_metadata(schema.metadata)
