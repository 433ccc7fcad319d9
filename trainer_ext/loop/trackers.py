"""The trackers that a run reports to: found by name before training, and unable to end it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from ..errors import ConfigError
from .describing import described_as

# What trackers are told once a training has begun. Before, their errors are those of a user who can still correct them.
LATER = (
    "on_epoch_begin",
    "on_epoch_end",
    "on_step_begin",
    "on_step_end",
    "on_log",
    "on_evaluate",
    "on_save",
    "on_train_end",
)
# transformers does not say whether these are installed.
UNKNOWN = ("flyte", "azure_ml")


def check_trackers(report_to: str | Sequence[str] | None) -> None:
    """
    Check that each tracker exists, and is installed.

    Raises:
        [`ConfigError`]: one does not, or is not.
    """
    if report_to is not None and not isinstance(report_to, str | list | tuple):
        raise ConfigError(f"report_to is {report_to!r}; it must be the name of a tracker, a list of names, or 'none'.")
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    installed = get_available_reporting_integrations() if names else []
    for name in names:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise ConfigError(
                f"report_to is {name!r}; it must be 'none', 'all', or some of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}."
            )
        if name not in installed and name not in UNKNOWN:
            raise ConfigError(
                f"report_to is {name!r}, which is not installed: pip install {name}. Installed: {', '.join(installed) or 'none'}."
            )


def guard_trackers(callbacks: Iterable[TrainerCallback]) -> None:
    """Let trackers that fail in a training only warn: a full disk, or a server that is gone. They stay what they are by class."""
    for callback in callbacks:
        tracker: Any = type(callback)
        if tracker in INTEGRATION_TO_CALLBACK.values():
            callback.__class__ = _guarded(tracker)


@cache
def _guarded(tracker: Any) -> Any:
    """Return the class of a tracker whose methods are [`described_as`]."""
    guard = described_as(f"What {tracker.__name__} records")
    return type(tracker.__name__, (tracker,), {event: guard(getattr(tracker, event)) for event in LATER})


class TrackedTrainer(Trainer):
    """A `Trainer` that no tracker can end once it trains."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train. See `Trainer.train`."""
        guard_trackers(self.callback_handler.callbacks)
        return super().train(*args, **kwargs)
