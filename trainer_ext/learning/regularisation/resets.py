"""When the reference becomes the trained policy of now (GARDO, arXiv:2512.24138)."""

from __future__ import annotations

from dataclasses import dataclass

from ...options import DDPOOptions


@dataclass(frozen=True)
class ResetRule:
    """
    A rule by which the reference moves.

    Parameters:
        rollouts (`int`, *optional*):
            Rollouts after which it moves at the latest.
        distance (`float`, *optional*):
            Mean distance from the reference in an update; if it is exceeded, the reference moves at the end of the rollout.
    """

    rollouts: int | None
    distance: float | None

    @classmethod
    def of(cls, options: DDPOOptions) -> ResetRule | None:
        """Return the rule of a run, if it has one."""
        rule = cls(options.reference_reset, options.reference_reset_kl)
        return None if rule == cls(None, None) else rule

    def is_far(self, distance: float) -> bool:
        """Return whether an update's mean distance from the reference asks for a reset."""
        return self.distance is not None and distance > self.distance

    def is_due(self, rollouts: int, was_far: bool) -> bool:
        """Return whether the reference moves at the end of a rollout, so many `rollouts` after it moved last."""
        return was_far or (self.rollouts is not None and rollouts >= self.rollouts)
