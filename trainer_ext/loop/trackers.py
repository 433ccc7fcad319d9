"""The trackers that a run reports to, by name."""

from __future__ import annotations

from collections.abc import Sequence

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from ..errors import ConfigError

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
