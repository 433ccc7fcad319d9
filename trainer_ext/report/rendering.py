"""HTML from templates. Every value is escaped where it is inserted; nothing of a run can become markup."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ddpo_plugins.names import DETECTORS, REWARDS

MINUTE, HOUR = 60, 3600
HIDDEN = ("Cc", "Cs", "Co")  #: categories of Unicode: control, surrogate, private use
TURNING = frozenset(
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)  #: characters that turn the direction of others


def number(value: float | None) -> str:
    """Return a measured number with four digits; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.4g}"
    return f"{value:.0f}" if "e+" in text and abs(value) < 1e15 else text


def signed(value: float | None) -> str:
    """Return a difference with its sign."""
    return "–" if value is None or math.isnan(value) else f"{value:+.4g}"


def duration(seconds: float) -> str:
    """Return seconds in the unit that people would use."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.3g} s"
    return f"{seconds / MINUTE:.3g} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.3g} h"


def visible(text: str) -> str:
    """Return a text with a sign for each character that cannot be seen, except for spaces and line breaks."""
    if text.isprintable():
        return text
    return "".join("�" if _is_hidden(char) else char for char in text)


def _is_hidden(char: str) -> bool:
    return char in TURNING or (unicodedata.category(char) in HIDDEN and char not in "\n\t")


def shortened(text: object, length: int = 160) -> str:
    """Return the beginning of a long text."""
    whole = str(text)
    return whole if len(whole) <= length else f"{whole[:length]} … ({len(whole):,} characters)"


def value(found: object) -> str:
    """Return a value of a record: numbers short, and what consists of others as JSON, without quotes around a text."""
    if isinstance(found, float):
        return number(found)
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=str)


def title_of(name: str) -> str:
    """Return a column's name for readers."""
    prefix, _, rest = name.partition("/")
    kind = {REWARDS: "held-out reward", DETECTORS: "detector"}.get(f"{prefix}/")
    return name if kind is None else f"{rest} ({kind})"


def asset(name: str) -> str:
    """Return a file of the templates' folder."""
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def digest(text: str) -> str:
    """Return how a content security policy names a script or style that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def render(template: str, context: Mapping[str, Any]) -> str:
    """
    Return a template of this room, filled in.

    Args:
        template (`str`):
            Name of the file.
        context (`Mapping[str, Any]`):
            The values, all of which are escaped.
    """
    return _environment().get_template(template).render(context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trainer_ext.report"),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (number, signed, duration, shortened, value, title_of)
    environment.filters |= {function.__name__: function for function in filters}
    environment.globals |= {"asset": asset, "digest": digest}
    return environment
