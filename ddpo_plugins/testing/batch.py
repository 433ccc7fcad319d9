"""The arguments with which the checks call a reward."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final

from ddpo_plugins.names import REWARD_ARGUMENTS

if TYPE_CHECKING:
    from PIL import Image

UNKNOWN_COLUMN = "a_column_of_another_dataset"

PROMPTS = (
    "a cat",
    "zwei Bären, 三只猫 и 🐋",
    "a photograph of " + ", ".join(f"{count} turtles" for count in range(2, 60)),  # beyond the 77 tokens of CLIP
)


@final
@dataclass(frozen=True)
class Batch:
    """
    B images with their prompts and columns. Rewards never receive these objects: [`arguments`] copies them.

    Parameters:
        images (`tuple[PIL.Image.Image, ...]` of length B):
            RGB.
        prompts (`tuple[str, ...]` of length B):
            Prompt of each image.
        columns (`Mapping[str, tuple[Any, ...]]`):
            Other columns of the dataset, each of length B.
    """

    images: tuple[Image.Image, ...]
    prompts: tuple[str, ...]
    columns: Mapping[str, tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.images)

    def select(self, order: Sequence[int]) -> Batch:
        """Return the images with these numbers, in this order."""
        return Batch(
            tuple(self.images[i] for i in order),
            tuple(self.prompts[i] for i in order),
            {name: tuple(values[i] for i in order) for name, values in self.columns.items()},
        )

    def resized(self, size: tuple[int, int]) -> Batch:
        """Return the same batch with images resized to this width and height, in pixels."""
        return Batch(tuple(image.resize(size) for image in self.images), self.prompts, self.columns)

    def arguments(self, form: Literal["pil", "pt"], device: Any) -> dict[str, Any]:
        """Return the trainer's arguments of a reward, without state and logging, as new objects each time."""
        images = [image.copy() for image in self.images]
        columns = {name: copy.deepcopy(list(values)) for name, values in self.columns.items()}
        return {**columns, "images": _tensor(images, device) if form == "pt" else images, "prompts": list(self.prompts)}


def make_batch(
    images: Sequence[Image.Image] | None,
    prompts: Sequence[str] | None,
    columns: Mapping[str, Sequence[Any]] | None,
) -> Batch:
    """
    Build a batch from the given values, with defaults for the others, and with a column that no reward knows.

    Raises:
        `ValueError`: the lengths differ, there is no image, or a column has the name of an argument.
    """
    taken = sorted(set(columns or {}) & {"prompt", *REWARD_ARGUMENTS})
    if taken:
        raise ValueError(f"A dataset cannot have the column {taken[0]!r}: rewards have own arguments. Rename it.")
    lengths = {"images": images, "prompts": prompts, **(columns or {})}
    given = {name: len(values) for name, values in lengths.items() if values is not None}
    if len(set(given.values())) > 1 or 0 in given.values():
        raise ValueError(f"Give as many images as prompts and values of each column, at least one; got {given}.")
    (count,) = set(given.values()) or {len(default_images())}
    images = [image.convert("RGB") for image in images] if images is not None else _repeat(default_images(), count)
    prompts = prompts if prompts is not None else _repeat(PROMPTS, count)
    known = {name: tuple(values) for name, values in (columns or {}).items()}
    return Batch(tuple(images), tuple(prompts), {**known, UNKNOWN_COLUMN: tuple(range(count))})


def default_images() -> list[Image.Image]:
    """Return four RGB images of 64 x 64 pixels: one colour, a gradient, noise, and stripes."""
    from PIL import Image

    size = (64, 64)
    gradient = Image.linear_gradient("L").resize(size)
    noise = Image.frombytes("RGB", size, random.Random(0).randbytes(3 * 64 * 64))
    stripes = Image.new("RGB", size, "white")
    stripes.paste("maroon", (0, 16, 64, 24))
    stripes.paste("navy", (0, 40, 64, 56))
    return [Image.new("RGB", size, "teal"), Image.merge("RGB", [gradient] * 3), noise, stripes]


def _repeat(values: Sequence[Any], count: int) -> list[Any]:
    return [values[index % len(values)] for index in range(count)]


def _tensor(images: Sequence[Image.Image], device: Any) -> Any:
    """Stack images of one size as float32 `(B, 3, H, W)` in [0, 1]."""
    import torch

    if not images:
        return torch.zeros(0, 3, 64, 64, device=device)
    if len({image.size for image in images}) > 1:
        raise ValueError(f"A tensor holds images of one size; got {sorted({image.size for image in images})}.")
    width, height = images[0].size
    pixels = torch.frombuffer(bytearray(b"".join(image.tobytes() for image in images)), dtype=torch.uint8)
    return (pixels.view(len(images), height, width, 3).permute(0, 3, 1, 2).float() / 255).to(device)
