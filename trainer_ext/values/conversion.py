"""The conversion of one option's value to the type of its field, where only one thing can be meant."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable
from dataclasses import Field
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from ..errors import ConfigError

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")

#: `None` turns these off, even where their type does not say so.
OPTIONAL = ("max_grad_norm",)
#: YAML reads `no` as false.
OFF = {"eval_strategy": "no", "save_strategy": "no", "logging_strategy": "no", "report_to": "none"}

#: Mappings that a text may stand for: JSON, or for the last two the name of a file that holds it. Others are read, with errors of
#: their own, where they are used.
JSON = ("lr_scheduler_kwargs", "accelerator_config", "fsdp_config")
JSON_FILES = ("accelerator_config", "fsdp_config")


def converted(field: Field[Any], value: Any, hint: Any) -> Any:
    """
    Return the value of an option as one of the types that its field allows.

    Args:
        field (`Field`):
            The field of a dataclass.
        value:
            The value that was given.
        hint:
            The field's type.

    Raises:
        [`ConfigError`]: it is of another type.
    """
    kinds = _alternatives(hint)
    if value is None and kinds <= CONVERTERS.keys() and field.default is not None and field.name not in OPTIONAL:
        raise _wrong(field, value, kinds)
    if value is None or value is field.default:
        return value
    if value is False and field.name in OFF:
        return OFF[field.name]
    kinds -= {NoneType}
    if len(kinds) == 1:
        convert = _converter(next(iter(kinds)))
    elif any(kind is dict or get_origin(kind) is dict for kind in kinds):
        convert = partial(_mapping, field.name)
    else:
        return value  # of one of several types: transformers reads it
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise _wrong(field, value, kinds) from error


def _alternatives(hint: Any) -> set[Any]:
    """Return the types that a type hint allows."""
    return set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}


def _converter(kind: Any) -> Callable[[Any], Any]:
    if get_origin(kind) is list:
        return lambda value: [_converter(get_args(kind)[0])(item) for item in _as_list(value)]
    return CONVERTERS.get(kind, lambda value: value)


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, dict):
        raise TypeError("a mapping is no list")
    return list(value) if isinstance(value, list | tuple | set) else [value]


def _truth(value: Any) -> bool:
    text = str(value).lower()
    if isinstance(value, bool | numbers.Integral | str) and text in TRUE + FALSE:
        return text in TRUE
    raise ValueError(text)


def _whole(value: Any) -> int:
    number = float(_number(value))
    if not number.is_integer():
        raise ValueError(value)
    return int(number)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real | str) or math.isnan(float(value)):
        raise ValueError(value)
    return value if isinstance(value, int | float) else float(value)


def is_infinite(value: Any) -> bool:
    """Return whether a value is an infinite number, or a list with one."""
    return any(map(is_infinite, value)) if isinstance(value, list) else isinstance(value, float) and math.isinf(value)


def _text(value: Any) -> str:
    if not isinstance(value, str | Path):
        raise TypeError(value)
    return value if isinstance(value, str) else str(value)


def _mapping(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple | set | numbers.Number):
        raise TypeError(value)
    if isinstance(value, str) and name in JSON:
        is_file = name in JSON_FILES and not value.lstrip().startswith("{")
        if not isinstance(json.loads(Path(value).read_text(encoding="utf-8") if is_file else value), dict):
            raise TypeError(value)
    return value  # or an object of a class of its own, as transformers allows


CONVERTERS: dict[Any, Callable[[Any], Any]] = {bool: _truth, int: _whole, float: _number, str: _text}

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
MANY = {int: "a list of whole numbers, such as [0, 1]", float: "a list of numbers, such as [1.0, 0.5]"}


def _wrong(field: Field[Any], value: Any, kinds: set[Any]) -> ConfigError:
    """Return the error for a value of another type: a single one, a list of them, or a mapping."""
    kinds = kinds - {NoneType}
    if len(kinds) > 1:  # a mapping or a text; the value is not shown, because it may hold a key
        form = "a mapping, JSON, or a file that holds JSON" if field.name in JSON_FILES else "a mapping, or JSON"
        return ConfigError(f"{field.name} is a {type(value).__name__}; it must be {form}.")
    (kind,) = kinds
    if get_origin(kind) is list:
        form = MANY.get(get_args(kind)[0], "a list of texts, such as ['a', 'b']")
    else:
        form = WORDS[kind] + (f", such as {field.default!r}" if isinstance(field.default, int | float | str) else "")
    return ConfigError(f"{field.name} is {value!r} ({type(value).__name__}); it must be {form}.")
