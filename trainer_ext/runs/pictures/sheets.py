"""Pictures of the policy: the same prompts and seeds, before, during and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ...images import to_pil
from ...loop.describing import describing
from ..atomic import replacing
from ..drawings import SampleSheet
from ..folder import picture_files
from .captions import caption, font_families

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE, GAP, CAPTION = 1.52, 0.08, 0.58  #: inches: side of a picture, between two, height of five lines above one


@dataclass(frozen=True)
class SampleSet:
    """
    Images of fixed prompts and seeds.

    Parameters:
        prompts (`list[str]` of length B):
            Prompt of each image.
        seeds (`list[int]` of length B):
            Seed of each image; empty if they are not drawn from seeds.
        images (`torch.Tensor` of shape `(B, H, W, 3)`, uint8):
            RGB.
        rewards (`list[float]` of length B):
            Weighted sums, NaN where there is none; empty if the images were not scored.
    """

    prompts: list[str]
    seeds: list[int]
    images: torch.Tensor
    rewards: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, sheet: SampleSheet) -> SampleSet:
        """
        Read the pictures of a sheet; those that are missing are white, so that the others keep their places.

        Raises:
            `FileNotFoundError`: all are missing.
        """
        found = {place: _read(file) for place, file in enumerate(sheet.files) if file is not None}
        if not found:
            raise FileNotFoundError(f"the pictures after {sheet.updates} updates are missing")
        white = torch.full_like(next(iter(found.values())), 255)
        images = torch.stack([found.get(place, white) for place in range(len(sheet.records))])
        prompts, seeds = ([record[name] for record in sheet.records] for name in ("prompt", "seed"))
        return cls(prompts, seeds, images, sheet.rewards.tolist())

    def save(self, folder: Path) -> None:
        """Write each image into `folder`, and all of them on one sheet beside it."""
        with describing("A sheet of pictures"):
            draw_sheet(folder.with_suffix(".png"), [(folder.name, self)])
        with replacing(folder) as place:
            place.mkdir()
            for index, image in enumerate(to_pil(self.images)):
                image.save(place / f"{index:02d}.png")


def draw_sheet(file: Path, rows: Sequence[tuple[str, SampleSet]], columns: int = 8) -> None:
    """Draw labelled sample sets under one another, each prompt's images in one column, with prompt, seed and reward."""
    total = max(len(samples.prompts) for _, samples in rows)
    columns = min(columns, total)
    blocks = -(-total // columns)
    figure, grid = picture_grid(blocks * len(rows), columns)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (label, samples) in enumerate(rows):
        for index, image in enumerate(to_pil(samples.images)):
            axes = grid[(index // columns) * len(rows) + row][index % columns]
            axes.imshow(image, interpolation="nearest")
            seed = f", seed {samples.seeds[index]}" if samples.seeds else ""
            reward = f": {samples.rewards[index]:.3g}" if samples.rewards else ""
            title = f"{caption(samples.prompts[index], index)}\n{label}{seed}{reward}"
            axes.set_title(title, fontsize=6, fontfamily=font_families(), parse_math=False)
    with replacing(file) as place:
        figure.savefig(place)


def picture_grid(rows: int, columns: int) -> tuple[Figure, Any]:
    """Return a figure and its axes, for pictures below captions. A layout that is computed would draw everything twice."""
    from matplotlib.figure import Figure

    width, height = columns * (PICTURE + GAP), rows * (PICTURE + CAPTION) + GAP
    figure = Figure(figsize=(width, height), dpi=120)
    edges = {"left": GAP / 2 / width, "right": 1 - GAP / 2 / width, "bottom": GAP / height, "top": 1 - CAPTION / height}
    between = {"wspace": GAP / PICTURE, "hspace": CAPTION / PICTURE}
    no_ticks = {"xticks": (), "yticks": ()}  # which would take a quarter of the time, though their axes are off
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw={**edges, **between}, subplot_kw=no_ticks)


def load_images(folder: Path) -> torch.Tensor:
    """Read the images that [`SampleSet.save`] wrote: `(B, H, W, 3)`, uint8."""
    return torch.stack([_read(file) for file in picture_files(folder)])


def _read(file: Path) -> torch.Tensor:
    with Image.open(file) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))
