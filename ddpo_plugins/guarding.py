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
from typing import TYPE_CHECKING, Any

from .errors import PluginError, cure_of, describe, message_of
from .masking import without_secrets
from .settings import SETTINGS, UNKNOWN

if TYPE_CHECKING:
    from .catalogue import Offer

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


@contextmanager
def plugin_code(offer: Offer[Any], verb: str, advice: str) -> Iterator[None]:
    """
    Context manager for the code of a plugin's offer: sets back what it changes of the process, and names the plugin in every
    error.

    Args:
        offer ([`Offer`]):
            The offer.
        verb (`str`):
            What is done with it, after "could not".
        advice (`str`):
            What to do about an error.

    Raises:
        [`PluginError`]: it raised any error, or called `sys.exit`.
    """
    try:
        with unchanged_settings():
            yield
    except KeyboardInterrupt as interrupt:  # the plugin may have hung: name it
        raise KeyboardInterrupt(f"in plugin {offer.origin}") from interrupt
    except BaseException as error:  # a plugin may call sys.exit
        what = message_of(error).rstrip(".") if isinstance(error, PluginError) else describe(error)
        text = f"Plugin {offer.origin} could not {verb} {offer.kind} {offer.spec.name!r}: {what}. {cure_of(error)}"
        raise PluginError(f"{text.strip()} {advice}") from without_secrets(error)
