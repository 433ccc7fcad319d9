"""Keeps a share of the images that a run trains on, as PNG files, while others are sampled."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..config import DDPOConfig
from ..images import to_pil
from ..runs.folder import RunFolder
from ..runs.place import naming_disk_faults
from ..runs.records import numbered

logger = logging.getLogger(__name__)

Keep = Callable[[int, torch.Tensor], None]

CHOICE = 1  #: tells the random numbers of this choice from those of others that the run's seed makes
COMPRESSION = 1  #: zlib's level: three times as fast as PNG's usual 6, for files that are a tenth larger
BYTES_PER_GB = 1e9


@dataclass
class ImageKeeper:
    """
    Keeps images of rollouts. Which ones is a pure function of the run's seed and the rollout's index, so that a run that is
    resumed keeps the same.

    Parameters:
        folder ([`RunFolder`]):
            The run's folder.
        share (`float`, *optional*):
            Share of the images to keep, in (0, 1]; none by default.
        limit_bytes (`float`):
            Once the images of earlier rollouts take as much, no more are kept.
        num_images (`int`):
            Images in a rollout, over all processes.
        seed (`int`):
            The run's seed.
    """

    folder: RunFolder
    share: float | None
    limit_bytes: float
    num_images: int
    seed: int
    _sizes: dict[int, int] = field(default_factory=dict)  # of each earlier rollout's images
    _full: bool = False

    @classmethod
    def of(cls, args: DDPOConfig) -> ImageKeeper:
        """Return the keeper of a run."""
        limit = args.keep_images_gb * BYTES_PER_GB
        return cls(RunFolder(args.folder), args.keep_images, limit, args.num_images_per_rollout, args.seed)

    def chosen(self, rollout: int) -> frozenset[int]:
        """Return the indices of the images of a rollout that are kept, if there is space for them."""
        if self.share is None:
            return frozenset()
        before, after = (math.floor(count * self.num_images * self.share + 1e-9) for count in (rollout, rollout + 1))
        generator = np.random.default_rng([self.seed, rollout, CHOICE])
        return frozenset(generator.choice(self.num_images, after - before, replace=False).tolist())

    @contextlib.contextmanager
    def keeping(self, rollout: int, first: int, number: int) -> Iterator[Keep]:
        """
        Context manager in which one process samples its images of a rollout. At its end all that are kept are on the disk.

        Args:
            rollout (`int`):
                Index of the rollout.
            first, number (`int`):
                Index of the process's first image in the rollout, and the number of its images.

        Yields:
            `Callable[[int, torch.Tensor], None]`: to be called for each batch, with the index of its first image among those of
            the process, and its images `(B, H, W, 3)`, uint8.

        Raises:
            [`OutputDirError`]: they cannot be written.
        """
        folder = self.folder.kept_images(rollout)
        for index, file in numbered(folder, "", ".png").items():
            if first <= index < first + number:  # of a run that went on from an earlier checkpoint, with other options
                file.unlink()
        chosen = self.chosen(rollout) if self._has_space(rollout) else frozenset()
        writes: list[Future[None]] = []
        pool = ThreadPoolExecutor(1, "images")

        def keep(start: int, images: torch.Tensor) -> None:
            kept = [row for row in range(len(images)) if first + start + row in chosen]
            if kept:
                files = [folder / f"{first + start + row:05d}.png" for row in kept]
                writes.append(pool.submit(_write, files, to_pil(images[kept])))

        try:
            yield keep
            with naming_disk_faults(self.folder.path):
                for write in writes:
                    write.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _has_space(self, rollout: int) -> bool:
        """Return whether the images of earlier rollouts leave space; the same in all processes, and in a resumed run."""
        if self.share is None:
            return False
        earlier = (index for index in range(rollout) if index not in self._sizes)
        self._sizes |= {index: _size(self.folder.kept_images(index)) for index in earlier}
        used = sum(size for index, size in self._sizes.items() if index < rollout)
        if used >= self.limit_bytes and not self._full:
            self._full = True
            logger.warning(
                "The images that were kept take %.3g GB, so no more are kept: keep_images_gb is %g.",
                used / BYTES_PER_GB,
                self.limit_bytes / BYTES_PER_GB,
            )
        return used < self.limit_bytes


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in numbered(folder, "", ".png").values())


def _write(files: list[Path], images: list[Image.Image]) -> None:
    """Write images. Each exists either whole or not at all; processes write different ones into one folder."""
    for file, image in zip(files, images, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        place = file.with_name(f".{file.name}")
        image.save(place, "PNG", compress_level=COMPRESSION)
        os.replace(place, file)
