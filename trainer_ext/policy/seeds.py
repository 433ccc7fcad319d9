"""Random generators from the seeds of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def image_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Return one generator for each image, on the host, so that a seed gives the same image on every device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]
