"""Pictures of the policy: the same prompts and seeds, before, during and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...images import to_pil
from ...loop.describing import describing
from ..atomic import replacing
from ..drawings import SampleSheet
from ..folder import picture_files
from .captions import caption
from .contact_sheet import ContactSheet


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
    sheet = ContactSheet(blocks * len(rows), columns)
    for row, (label, samples) in enumerate(rows):
        for index, image in enumerate(to_pil(samples.images)):
            seed = f", seed {samples.seeds[index]}" if samples.seeds else ""
            reward = f": {samples.rewards[index]:.3g}" if samples.rewards else ""
            title = f"{caption(samples.prompts[index], index)}\n{label}{seed}{reward}"
            sheet.put((index // columns) * len(rows) + row, index % columns, image, title)
    sheet.save(file)


def load_images(folder: Path) -> torch.Tensor:
    """Read the images that [`SampleSet.save`] wrote: `(B, H, W, 3)`, uint8."""
    return torch.stack([_read(file) for file in picture_files(folder)])


def _read(file: Path) -> torch.Tensor:
    with Image.open(file) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))
