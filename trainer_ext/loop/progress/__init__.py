"""What a person sees of a run while it goes on: bars, one line for each rollout, and the time that is left."""

from .bars import StepBar, closing_bars
from .callback import RolloutProgress

__all__ = ["RolloutProgress", "StepBar", "closing_bars"]
