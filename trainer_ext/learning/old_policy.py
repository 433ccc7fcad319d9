"""An old policy beside the trained one: how its weights follow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OldPolicy:
    """
    An average of the trained weights, old <- decay * old + (1 - decay) * trained, that remembers longer and longer.

    Parameters:
        growth (`float`):
            How much the decay grows with each move.
        limit (`float`):
            Largest decay.
        first (`int`, *optional*, defaults to 0):
            Moves with a decay of 0, after which it grows.
        each_update (`bool`, *optional*, defaults to `False`):
            Move after each update instead of after the last one on a rollout.
        samples (`bool`, *optional*, defaults to `False`):
            Whether the old policy samples the rollouts.
    """

    growth: float
    limit: float
    first: int = 0
    each_update: bool = False
    samples: bool = False

    def decay(self, moves: int) -> float:
        """Return the decay of the move that follows `moves` others."""
        return min(self.growth * max(moves - self.first, 0), self.limit)

    def moves_after(self, updates: int, updates_per_rollout: int) -> int | None:
        """Return how many moves come before the one after so many updates of the run; `None` if none is due there."""
        if self.each_update:
            return updates - 1
        return None if updates % updates_per_rollout else updates // updates_per_rollout - 1
