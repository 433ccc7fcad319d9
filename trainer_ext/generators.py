"""The global random generators of Python, NumPy and torch. The trainer does not draw from them, but rewards may."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class GeneratorStates:
    """
    Where the generators were at a moment.

    Parameters:
        python, numpy, torch (`Any`):
            As their modules give them.
        cuda (`torch.Tensor`, *optional*):
            Of the current device, if there is one.
    """

    python: Any
    numpy: Any
    torch: Any
    cuda: torch.Tensor | None

    @classmethod
    def now(cls) -> GeneratorStates:
        """Return where they are."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)

    def restore(self) -> None:
        """Set the generators back."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)


@contextlib.contextmanager
def untouched_generators() -> Iterator[None]:
    """Leave no trace of what the block draws."""
    states = GeneratorStates.now()
    try:
        yield
    finally:
        states.restore()
