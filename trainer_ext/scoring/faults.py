"""What a reward or detector did instead of returning values."""

from __future__ import annotations

from ddpo_plugins.errors import cure_of, describe
from ddpo_plugins.guarding import ChangedSettingError


def what_it_did(error: BaseException) -> str:
    """Describe an error that a function raised, or a setting that it changed: a sentence without its subject."""
    if isinstance(error, ChangedSettingError):
        return str(error)
    return f"raised {describe(error)}. {cure_of(error)}".strip()
