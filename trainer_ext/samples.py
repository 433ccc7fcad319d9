"""Pictures of the policy: the same prompts and seeds, before, during and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

from .policy import LogProbPipeline
from .policy.pipeline import swapped, to_uint8
from .rewards import to_pil
from .rollout import image_generators


@dataclass(frozen=True)
class SampleSet:
    """
    Images of fixed prompts and seeds.

    Parameters:
        prompts (`list[str]` of length B):
            Prompt of each image.
        seeds (`list[int]` of length B):
            Seed of each image.
        images (`torch.Tensor` of shape `(B, H, W, 3)`, uint8):
            RGB.
        rewards (`list[float]` of length B):
            Weighted sums; NaN for none.
    """

    prompts: list[str]
    seeds: list[int]
    images: torch.Tensor
    rewards: list[float]

    def save(self, folder: Path) -> None:
        """Write the images one by one, and all on one sheet beside the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(to_pil(self.images)):
            image.save(folder / f"{index:02d}.png")
        draw_sheet(folder.with_suffix(".png"), [(folder.name, self)])


def spread(items: Sequence[str], number: int) -> list[str]:
    """Take `number` items at even distances; fewer if there are not so many."""
    number = min(number, len(items))
    return [items[index * len(items) // number] for index in range(number)]


@torch.no_grad()
def stock_images(policy: LogProbPipeline, prompts: Sequence[str], seeds: Sequence[int], batch_size: int) -> torch.Tensor:
    """
    Make images as a user of stock diffusers would: the pipeline's own call with a DDIM scheduler, one seed an image.

    Returns:
        `torch.Tensor` of shape `(B, H, W, 3)`, uint8.
    """
    images = []
    with swapped(policy.pipeline, {"scheduler": policy.scheduler}):
        for first in range(0, len(prompts), batch_size):
            part = slice(first, first + batch_size)
            output = policy.pipeline(
                prompt=list(prompts[part]),
                generator=image_generators(seeds[part]),
                output_type="pt",
                **policy.stock_kwargs(),
            )
            images.append(to_uint8(output.images))
    return torch.cat(images)


def draw_sheet(file: Path, rows: Sequence[tuple[str, SampleSet]], columns: int = 8) -> None:
    """Draw labelled sample sets under one another, each prompt's images in one column, with prompt and reward."""
    total = len(rows[0][1].prompts)
    columns = min(columns, total)
    blocks = -(-total // columns)
    figure = Figure(figsize=(1.6 * columns, 1.9 * blocks * len(rows) + 0.2), dpi=120, layout="constrained")
    grid = figure.subplots(blocks * len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (label, samples) in enumerate(rows):
        for index, image in enumerate(to_pil(samples.images)):
            axes = grid[(index // columns) * len(rows) + row][index % columns]
            axes.imshow(image, interpolation="nearest")
            axes.set_title(f"{samples.prompts[index]}\n{label}: {samples.rewards[index]:.3g}", fontsize=6)
    figure.savefig(file)


def load_images(folder: Path) -> torch.Tensor:
    """Read the images that [`SampleSet.save`] wrote: `(B, H, W, 3)`, uint8."""
    tensors = [torch.from_numpy(_array(file)) for file in sorted(folder.glob("*.png"))]
    return torch.stack(tensors)


def _array(file: Path):  # type: ignore[no-untyped-def]
    import numpy as np

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).copy()
