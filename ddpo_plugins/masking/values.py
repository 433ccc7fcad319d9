"""Options and command lines without their secrets."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from .names import HIDDEN, is_secret, is_secret_name
from .texts import masked_text

NAMING = ("name", "header", "key")  # `{"name": "Authorization", "value": ...}`: entries that name the one beside them


def masked(value: Any) -> Any:
    """
    Return a value for a file that others may read: plain, and without secrets.

    Functions and classes become their names, other objects the names of their classes: a `repr` has addresses and secrets.
    """
    if isinstance(value, Mapping):
        return {masked_text(str(name)): _masked_entry(value, name, item) for name, item in value.items()}
    if isinstance(value, set | frozenset):
        return [masked(item) for item in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        return _masked_items(value)
    if isinstance(value, str | PurePath):
        return masked_text(str(value))
    return value if isinstance(value, bool | int | float | None) else _short(value)


def masked_command(arguments: Sequence[str]) -> str:
    """Return a command line as one text without secrets, also without those in options that are JSON."""
    return shlex.join(_masked_items([_masked_argument(argument) for argument in arguments]))


def name_of(value: Any) -> str:
    """Return module and qualified name of a function or class."""
    module = getattr(value, "__module__", None)  # methods of built-in types have none
    return f"{module}.{value.__qualname__}" if module else str(value.__qualname__)


def _masked_entry(mapping: Mapping[Any, Any], name: object, item: Any) -> Any:
    """Hide an entry by its name, or by the name that stands beside it."""
    by_name = {}
    if str(name).lower() in (*NAMING, "value"):
        by_name = {str(other).lower(): mapping[other] for other in mapping}
    if "value" not in by_name:
        return HIDDEN if is_secret(name, item) else masked(item)
    named = any(is_secret_name(by_name[naming]) for naming in NAMING if naming in by_name)
    return HIDDEN if named and str(name).lower() == "value" else masked(item)


def _masked_items(items: Sequence[Any]) -> list[Any]:
    """Hide what follows a secret's name in a pair, or its flag in a command line."""
    befores = [None, *items[:-1]] if items else []
    pairs = zip(befores, items, strict=True)
    return [HIDDEN if _follows_name(before, item, len(items)) else masked(item) for before, item in pairs]


def _follows_name(before: Any, item: Any, length: int) -> bool:
    if not isinstance(before, str) or re.search(r"[\s=:]", before) or not is_secret_name(before):
        return False
    return (before.startswith("-") or length == 2) and not str(item).startswith("--")


def _masked_argument(argument: str) -> str:
    flag, sign, text = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    if sign and is_secret_name(flag):
        return f"{flag}={HIDDEN}"
    if not text.lstrip().startswith(("{", "[")):
        return argument
    try:
        return flag + sign + json.dumps(masked(json.loads(text)))
    except ValueError:  # what is meant as JSON, and is not, may hold a key in any form
        return flag + sign + HIDDEN


def _short(value: Any) -> str:
    return name_of(value) if inspect.isroutine(value) or inspect.isclass(value) else f"<{name_of(type(value))}>"
