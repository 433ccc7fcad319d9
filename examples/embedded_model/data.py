"""Shards in memory, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from .hardware import device, generator


def read(files: Sequence[Path], name: str) -> Tensor:
    """Return one tensor of all shards, on the [`device`]: it has room for all of them, and then nothing waits for data."""
    tensors = []
    for file in files:
        with safe_open(file, "pt") as shard:
            tensors.append(shard.get_tensor(name))
    return torch.cat(tensors).to(device())


def pixels(images: Tensor) -> Tensor:
    """Return uint8 images (B, 3, H, W) as floats in [-1, 1], channels last."""
    return images.float().div(127.5).sub(1.0).contiguous(memory_format=torch.channels_last)


def batch(count: int, size: int, seed: int, step: int) -> Tensor:
    """Return which of `count` examples a step sees: (size,) int64."""
    return torch.randint(count, (size,), generator=generator(seed, step), device=device())
