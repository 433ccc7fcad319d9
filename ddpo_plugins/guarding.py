"""
Settings of the whole process that a plugin's code must leave as they are: a plugin that changes torch's default dtype when it is
imported would silently change every training, also those that do not use it.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import PluginError
from .settings import SETTINGS, UNKNOWN

logger = logging.getLogger(__name__)


class ChangedSettingError(PluginError):
    """A plugin's code changed settings of the whole process, such as torch's default dtype, and left them so."""


@contextmanager
def unchanged_settings() -> Iterator[None]:
    """
    Context manager for a plugin's code: sets back the settings that it changes. Those that only concern speed or warnings
    cost a warning.

    Raises:
        [`ChangedSettingError`]: it changed others, and raised no other error. The message begins with a verb.
    """
    before = [setting.value() for setting in SETTINGS]
    try:
        yield
    except BaseException:
        _restore(before)
        raise
    changes = _restore(before)
    if changes:
        raise ChangedSettingError(
            f"changed {', '.join(changes)}. The whole process shares that, so it was set back. Change it in a `with` block, "
            "or set it back yourself."
        )


def _restore(before: list[Any]) -> list[str]:
    """Set back the settings that differ, and describe the differences that are refused."""
    refused = []
    for setting, old in zip(SETTINGS, before, strict=True):
        new = setting.value()
        if old is UNKNOWN or new is UNKNOWN or new == old:
            continue
        setting.restore(sys.modules[setting.module], old)
        change = f"{setting.name} from {old} to {new}"
        if setting.refused:
            refused.append(change)
        else:
            _warn_once(change)
    return refused


@functools.cache
def _warn_once(change: str) -> None:
    logger.warning("A plugin's code changed %s. The whole process shares that, so it was set back.", change)
