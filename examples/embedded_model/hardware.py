"""The GPU if there is one, and what is done differently there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast() -> AbstractContextManager[object]:
    """Return bf16 on a GPU; fp32 on a CPU, most of which emulate bf16 ten times slower."""
    return torch.autocast("cuda", torch.bfloat16) if torch.cuda.is_available() else nullcontext()


def generator(seed: int, step: int) -> torch.Generator:
    """Return the random numbers of one step, which depend on nothing that happened before."""
    return torch.Generator(device()).manual_seed(1_000_003 * seed + step)
