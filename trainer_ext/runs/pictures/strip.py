"""The fixed prompts and seeds through training, on one picture: a row for each prompt, a column for each moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..drawings import SampleSheet
from ..folder import RunFolder
from .captions import caption
from .contact_sheet import ContactSheet

MAX_ROWS = 8
MAX_COLUMNS = 10


def draw_strip(folder: RunFolder) -> None:
    """
    Draw `samples/snapshots.png`: at most [`MAX_ROWS`] prompts at at most [`MAX_COLUMNS`] moments, with seed, update and reward.

    What has no picture at a moment, because it is missing or the number of fixed samples was changed, stays empty there.
    """
    sheets = _spaced([sheet for sheet in folder.samples() if any(sheet.files)], MAX_COLUMNS)
    if not sheets:
        return
    rows = _spaced(sheets[-1].records, MAX_ROWS)
    strip = ContactSheet(len(rows), len(sheets))
    strip.write_below(f"{_rewards(sheets[-1].records[0])} of the same prompts and seeds through training")
    for index, row in enumerate(rows):
        for column, sheet in enumerate(sheets):
            _put(strip, sheet, row, index, column)
    strip.save(folder.strip_file)


def _put(strip: ContactSheet, sheet: SampleSheet, row: Mapping[str, Any], index: int, column: int) -> None:
    pairs = zip(sheet.records, sheet.files, strict=True)
    record, file = next((pair for pair in pairs if _key(pair[0]) == _key(row)), (row, None))
    if file is None:
        return
    reward = "" if record["reward"] is None else f": {record['reward']:.3g}"
    said = f"update {sheet.updates}{reward}"
    title = said if column else f"{caption(row['prompt'], index)}\nseed {row['seed']}\n{said}"
    strip.put(index, column, _read(file), title)


def _rewards(record: Mapping[str, Any]) -> str:
    """Name what the pictures were scored by."""
    names = [name.partition("/")[2] for name in record if name.startswith("rewards/")]
    return " + ".join(names) or "reward"


def _key(record: Mapping[str, Any]) -> tuple[int, str]:
    return record["seed"], record["prompt"]


def _spaced(items: Sequence[Any], number: int) -> list[Any]:
    """Take at most `number` items at even distances, the first and the last among them."""
    if len(items) <= number:
        return list(items)
    return [items[round(index * (len(items) - 1) / (number - 1))] for index in range(number)]


def _read(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")
