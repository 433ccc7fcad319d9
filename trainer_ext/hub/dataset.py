"""The repository of a run's images on the Hub: Parquet files that `datasets` and the viewer read, and the card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from ..errors import ConfigError
from ..file_names import STAGING
from ..runs.folder import RunFolder
from ..runs.records import numbered, read_records
from .cards.base import Base
from .cards.description import describe
from .cards.markdown import render
from .cards.readme import merged_readme
from .cards.results import Results
from .shards import Shard, Source, common_schema

ROLLOUTS, BEFORE_AFTER = "rollouts", "before_after"  #: configurations of the dataset
SHARD_BYTES = 200_000_000  #: of pictures, from which on a shard is complete
TAGS = ("text-to-image", "reinforcement-learning", "ddpo", "rewards", "image")
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST_SIZE = "n>1M"


def dataset_files(folder: RunFolder) -> dict[str, Path]:
    """
    Write the images of a run as Parquet files, and return them by their path in the repository, without the card.

    Two configurations: `before_after`, the fixed samples at the beginning and at the end, and `rollouts`, the images that the run
    kept (see `keep_images` of [`DDPOConfig`]). A file whose images have not changed is not written again, and keeps its content.

    Args:
        folder ([`RunFolder`]):
            The run. The files are written into `.hub` in it.

    Raises:
        [`ConfigError`]: the run has no images, or no `run.json`.
    """
    written = {}
    for shards in _configurations(Results(folder)).values():
        records = common_schema(shards)
        for shard in shards:
            written[shard.name] = shard.write(folder.path / STAGING, records)
    return written


def dataset_card(
    folder: RunFolder,
    repo_id: str,
    adapter_id: str | None = None,
    existing: str | None = None,
    base_licence: Mapping[str, str] | None = None,
) -> str:
    """
    Return the README.md of the repository of a run's images.

    Args:
        folder ([`RunFolder`]):
            The run.
        adapter_id (`str`, *optional*):
            The repository of the run's adapter, `user/name`.
        repo_id, existing, base_licence:
            As for [`adapter_card`].

    Raises:
        [`ConfigError`]: the run has no images, or no `run.json`.
    """
    results = Results(folder)
    configurations = _configurations(results)
    base = Base.of(results.setup, base_licence)
    rows = {name: sum(shard.num_rows for shard in shards) for name, shards in configurations.items()}
    context = {
        **describe(results, base),
        "repo_id": repo_id,
        "adapter_id": adapter_id,
        "rows": rows,
    }
    front_matter = _front_matter(repo_id, base, rows)
    return merged_readme(front_matter, render("dataset_card.md.jinja", context), existing)


def _front_matter(repo_id: str, base: Base, rows: Mapping[str, int]) -> dict[str, Any]:
    total = sum(rows.values())
    configs = [{"config_name": name, "data_files": [{"split": "train", "path": f"{name}/*.parquet"}]} for name in rows]
    licence: dict[str, Any] = dict(base.licence)
    data = DatasetCardData(
        pretty_name=repo_id.rpartition("/")[2],
        task_categories=["text-to-image"],
        size_categories=[next((name for limit, name in SIZES if total < limit), LARGEST_SIZE)],
        tags=list(TAGS),
        configs=configs,
        **licence,
    )
    return dict(data.to_dict())


def _configurations(results: Results) -> dict[str, list[Shard]]:
    """Return the shards of each configuration that has images."""
    found = {ROLLOUTS: list(_rollouts(results)), BEFORE_AFTER: list(_before_after(results))}
    found = {name: shards for name, shards in found.items() if shards}
    if not found:
        raise ConfigError(
            f"{results.folder.path} holds no images. Runs with num_sample_images above 0 draw some before and after training, "
            "and with keep_images=0.1 they keep a tenth of those that they train on."
        )
    return found


def _rollouts(results: Results) -> Iterator[Shard]:
    """Yield shards of the images that were kept, each with whole rollouts: later rollouts change none but the last."""
    open_shard: list[Source] = []
    for source in _kept(results):
        open_shard.append(source)
        if sum(one.num_bytes for one in open_shard) >= SHARD_BYTES:
            yield Shard(f"{ROLLOUTS}/train-{open_shard[0].number:05d}.parquet", open_shard)
            open_shard = []
    if open_shard:
        yield Shard(f"{ROLLOUTS}/train-{open_shard[0].number:05d}.parquet", open_shard)


def _kept(results: Results) -> Iterator[Source]:
    for rollout in results.folder.rollouts():
        pictures, file = numbered(results.folder.kept_images(rollout), "", ".png"), results.folder.rollout_file(rollout)
        records = read_records(file, ["seed"]) if pictures else None
        recorded = {index: picture for index, picture in pictures.items() if index < len(records or ())}
        if recorded:
            yield Source(rollout, file, recorded, {"step": rollout * results.setup["updates_per_rollout"]})


def _before_after(results: Results) -> Iterator[Shard]:
    """Yield the fixed samples, each before and after training."""
    if results.sheets is None:
        return
    first, last = results.sheets
    moments = {"before" if first.updates == 0 else f"update {first.updates}": first, "after": last}
    if first.updates == last.updates:
        moments.pop("after")
    yield Shard(
        f"{BEFORE_AFTER}/train-00000.parquet",
        [
            Source(
                sheet.updates,
                results.folder.sample_file(sheet.updates),
                {index: file for index, file in enumerate(sheet.files) if file is not None},
                {"step": sheet.updates, "moment": moment},
            )
            for moment, sheet in moments.items()
        ],
        interleaved=True,
    )
