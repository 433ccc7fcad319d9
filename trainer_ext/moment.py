"""What a run goes back to when it is interrupted."""

from __future__ import annotations

from dataclasses import dataclass

from .generators import GeneratorStates
from .metrics import RunMetrics, Values


@dataclass(frozen=True)
class Moment:
    """
    What an update, or a rollout, changes before it is done.

    Parameters:
        step (`int`):
            Updates before.
        generators ([`GeneratorStates`]):
            Which rewards may draw from.
        metrics (`Mapping[str, Sequence[float]]`):
            Measured since the last log.
    """

    step: int
    generators: GeneratorStates
    metrics: Values

    @classmethod
    def now(cls, step: int, metrics: RunMetrics) -> Moment:
        """Remember this moment, after `step` updates."""
        return cls(step, GeneratorStates.now(), metrics.state_dict())

    def restore(self, metrics: RunMetrics) -> None:
        """Go back to it."""
        self.generators.restore()
        metrics.load_state_dict(self.metrics)
