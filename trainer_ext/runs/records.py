"""The files of a run that people look at: every image's reward as Parquet, and the reward curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .atomic import replacing

FOLDER = "rollouts"


def write_records(output_dir: Path, index: int, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one rollout's records; `datasets.load_dataset("parquet", data_dir=...)` reads them all."""
    folder = output_dir / FOLDER
    names = dict.fromkeys(name for record in records for name in record)  # some processes may have logged more
    with replacing(folder / f"rollout-{index:05d}.parquet") as file:
        pq.write_table(pa.table({name: [record.get(name) for record in records] for name in names}), file)


def read_rewards(output_dir: Path) -> dict[int, np.ndarray]:
    """Return the rewards of each rollout so far, by index."""
    tables = (
        pq.read_table(file, columns=["rollout", "reward"]) for file in sorted((output_dir / FOLDER).glob("*.parquet"))
    )
    return {table["rollout"][0].as_py(): table["reward"].drop_null().to_numpy() for table in tables}
