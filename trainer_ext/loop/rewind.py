"""The global random generators of Python, NumPy and torch. The trainer does not draw from them, but rewards may."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .metrics import RunMetrics, Values


@dataclass(frozen=True)
class RngState:
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
    def now(cls) -> RngState:
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
def preserved_rng() -> Iterator[None]:
    """Leave no trace of what the block draws."""
    states = RngState.now()
    try:
        yield
    finally:
        states.restore()


@dataclass(frozen=True)
class RewindPoint:
    """
    What an update, or a rollout, changes before it is done.

    Parameters:
        step (`int`):
            Updates before.
        generators ([`RngState`]):
            Which rewards may draw from.
        metrics (`Mapping[str, Sequence[float]]`):
            Measured since the last log.
    """

    step: int
    generators: RngState
    metrics: Values

    @classmethod
    def now(cls, step: int, metrics: RunMetrics) -> RewindPoint:
        """Remember this moment, after `step` updates."""
        return cls(step, RngState.now(), metrics.state_dict())

    def restore(self, metrics: RunMetrics) -> None:
        """Go back to it."""
        self.generators.restore()
        metrics.load_state_dict(self.metrics)
