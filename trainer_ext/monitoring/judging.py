"""Judges the images of an evaluation: scores, cheap figures and pictures on the disk; then their records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddpo_plugins.names import PIXELS

from ..images import to_pil
from ..loop.describing import describing
from ..rollouts.measure import image_records
from ..rollouts.schedule import SamplingPlan
from ..scoring.scores import Scores
from ..scoring.suite import RewardSuite
from ..types import FloatArray
from .pixels import mean_distances, pixel_figures, thumbnail

QUALITY = 80  #: of WebP files
MAX_PICTURE_SIDE = 512  #: pixels; larger pictures are averaged down before they are written


@dataclass(frozen=True)
class EvaluatedBatch:
    """
    B images of an evaluation, before they are judged.

    Parameters:
        numbers (`Sequence[int]` of length B):
            Number of each image in the evaluation.
        rows (`Sequence[int]` of length B):
            Number of each image's row in the dataset.
        plan ([`SamplingPlan`]):
            Prompts and seeds.
        images (`torch.Tensor` of shape `(B, H, W, 3)`, uint8):
            RGB.
        kl (`np.ndarray` of shape `(B,)`):
            Divergence from the model before training, in nats an image; NaN where it is not measured.
    """

    numbers: Sequence[int]
    rows: Sequence[int]
    plan: SamplingPlan
    images: torch.Tensor
    kl: FloatArray


@dataclass(frozen=True)
class JudgedBatch:
    """
    The judgements of a batch.

    Parameters:
        batch ([`EvaluatedBatch`]):
            The batch, whose images are no longer needed.
        scores ([`Scores`]):
            Values of all rewards and detectors.
        pixels (`Sequence[Mapping[str, float]]` of length B):
            [`pixel_figures`] of each image.
        thumbnails (`np.ndarray` of shape `(B, 193)`):
            [`thumbnail`] of each image.
    """

    batch: EvaluatedBatch
    scores: Scores
    pixels: Sequence[Mapping[str, float]]
    thumbnails: FloatArray

    def records(self, moment: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the record of each image, which begins with `moment`."""
        scored = image_records(moment, self.batch.plan, self.scores)
        measured = zip(self.batch.rows, self.batch.kl, self.pixels, scored, strict=True)
        return [
            {
                **record,
                "row": row,
                "kl": None if np.isnan(kl) else float(kl),
                **{f"{PIXELS}{name}": value for name, value in figures.items()},
            }
            for row, kl, figures, record in measured
        ]


def judge(suites: Sequence[RewardSuite], batch: EvaluatedBatch, state: Any, folder: Path | None) -> JudgedBatch:
    """Score and measure a batch, and write its pictures into a folder, if there is one."""
    scores = Scores.joined([suite.score(batch.images, batch.plan.image_rows, state) for suite in suites])
    images = to_pil(batch.images)
    if folder is not None:
        with describing("The pictures of an evaluation"):
            write_pictures([folder / f"{number:05d}.webp" for number in batch.numbers], images)
    figures = [pixel_figures(image) for image in images]
    return JudgedBatch(batch, scores, figures, np.stack([thumbnail(image) for image in images]))


def write_pictures(files: Iterable[Path], images: Iterable[Image.Image]) -> None:
    """Write pictures as WebP. Each exists either whole or not at all; processes write different ones into one folder."""
    for file, image in zip(files, images, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        place = file.with_name(f".{file.name}")
        factor = -(-max(image.size) // MAX_PICTURE_SIDE)
        (image.reduce(factor) if factor > 1 else image).save(place, "WEBP", quality=QUALITY)
        os.replace(place, file)


def evaluation_records(moment: Mapping[str, Any], judged: Sequence[JudgedBatch]) -> list[dict[str, Any]]:
    """Return the records of one process's images, with each image's diversity where its row has several."""
    records = [record for batch in judged for record in batch.records(moment)]
    thumbnails = [vector for batch in judged for vector in batch.thumbnails]
    diversities: list[float | None] = []
    for _, images in groupby(zip(records, thumbnails, strict=True), key=lambda pair: pair[0]["row"]):
        vectors = np.stack([vector for _, vector in images])
        diversities += mean_distances(vectors).tolist() if len(vectors) > 1 else [None]
    return [{**record, "diversity": value} for record, value in zip(records, diversities, strict=True)]
