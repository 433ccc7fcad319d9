"""
The state that a run returns to when an update or a rollout is cut short: the global random generators, from which rewards may
draw, and the measurements.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .metrics import RunMetrics


@dataclass(frozen=True)
class RngState:
    """
    The states of the global random generators at one moment.

    Parameters:
        python, numpy, torch (`Any`):
            The states as their modules return them.
        cuda (`torch.Tensor`, *optional*):
            State of the current CUDA device's generator, if there is one.
    """

    python: Any
    numpy: Any
    torch: Any
    cuda: torch.Tensor | None

    @classmethod
    def now(cls) -> RngState:
        """Return the current states."""
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
    """Restore the generators after the block, so that its draws leave no trace."""
    states = RngState.now()
    try:
        yield
    finally:
        states.restore()


@dataclass(frozen=True)
class RewindPoint:
    """
    The state to return to when an update, or a rollout, is cut short.

    Parameters:
        step (`int`):
            Number of updates before this moment.
        generators ([`RngState`]):
            The global generators, from which rewards may draw.
        metrics ([`RunMetrics`]):
            Measurements since the last log.
    """

    step: int
    generators: RngState
    metrics: RunMetrics

    @classmethod
    def now(cls, step: int, metrics: RunMetrics) -> RewindPoint:
        """Return the current state, after `step` updates."""
        return cls(step, RngState.now(), metrics.copy())

    def restore(self, metrics: RunMetrics) -> None:
        """Return to this moment."""
        self.generators.restore()
        metrics.load_state_dict(self.metrics.state_dict())
