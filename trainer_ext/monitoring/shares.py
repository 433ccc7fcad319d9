"""Which images of an evaluation a process draws, and with which seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..config import DDPOConfig


@dataclass(frozen=True)
class Share:
    """
    One process's share of the images of an evaluation. All images of a row are of one process.

    Parameters:
        num_rows (`int`):
            Rows of the dataset.
        images_per_prompt (`int`):
            Images of each row.
        process, num_processes (`int`):
            Number of this process, and of all.
    """

    num_rows: int
    images_per_prompt: int
    process: int
    num_processes: int

    @classmethod
    def of(cls, num_rows: int, args: DDPOConfig) -> Share:
        """Return the share of this process."""
        return cls(num_rows, args.eval_images_per_prompt, args.process_index, args.world_size)

    @property
    def sizes(self) -> list[int]:
        """Number of images of each process."""
        return [len(self._rows(process)) * self.images_per_prompt for process in range(self.num_processes)]

    def batches(self, size: int) -> Iterator[Sequence[int]]:
        """Yield the numbers of this process's images, batch by batch."""
        each = self.images_per_prompt
        own = [row * each + image for row in self._rows(self.process) for image in range(each)]
        yield from (own[first : first + size] for first in range(0, len(own), size))

    def row(self, number: int) -> int:
        """Return the row of an image."""
        return number // self.images_per_prompt

    def seed(self, number: int) -> int:
        """Return an image's seed: of the first image of a row, the row's number, however many there are."""
        row, image = divmod(number, self.images_per_prompt)
        return row + image * self.num_rows

    def _rows(self, process: int) -> range:
        return range(process, self.num_rows, self.num_processes)
