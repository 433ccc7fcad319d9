"""One pass over the values of options, before anything is done with them: each has its type, and is within its limits."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True)
class Limit:
    """
    The numbers that some options may have. Where an option can be left out, `None` is always allowed.

    Parameters:
        text (`str`):
            What an error says: "it must be ...".
        allows (`Callable[[float], bool]`):
            Whether a number is allowed.
        names (`str`):
            Names of the options, with spaces between them.
    """

    text: str
    allows: Callable[[float], bool]
    names: str


LIMITS = (
    Limit(
        "at least 1",
        lambda value: value >= 1,
        "num_inference_steps num_images_per_rollout num_images_per_prompt rollout_batch_size num_inner_epochs stat_buffer_size "
        "stat_min_count lora_r lora_alpha per_device_train_batch_size gradient_accumulation_steps save_total_limit "
        "eval_images_per_prompt",
    ),
    Limit(
        "greater than 0",
        lambda value: value > 0,
        "clip_range advantage_clip rwr_beta keep_images_gb learning_rate adam_epsilon num_train_epochs save_steps "
        "logging_steps eval_steps ddp_timeout",
    ),
    Limit(
        "at least 0",
        lambda value: value >= 0,
        "weight_decay max_grad_norm warmup_steps warmup_ratio eval_delay",
    ),
    Limit("0, which turns it off, or more", lambda value: value >= 0, "num_sample_images sample_every"),
    Limit("0, for no KL term in the loss, or greater", lambda value: value >= 0, "beta"),
    Limit("in (0, 1]", lambda value: 0 < value <= 1, "timestep_fraction keep_images"),
    Limit("in [0, 1)", lambda value: 0 <= value < 1, "adam_beta1 adam_beta2"),
    Limit("in [0, 1), such as 0.9 for the best tenth", lambda value: 0 <= value < 1, "rwr_quantile"),
    Limit("in (0, 1), or left out for no moving average", lambda value: 0 < value < 1, "ema_decay"),
    Limit("from 0 to 2**32 - 1", lambda value: 0 <= value < 2**32, "seed"),
    Limit("at least 1, or -1 for num_train_epochs", lambda value: value >= 1 or value == -1, "max_steps"),
)
LIMIT_OF = {name: limit for limit in LIMITS for name in limit.names.split()}


#: `None` turns these off, even where their type does not say so.
OPTIONAL = ("max_grad_norm",)
#: Infinity turns these off.
UNBOUNDED = ("max_grad_norm", "clip_range", "advantage_clip", "reward_timeout", "keep_images_gb")
#: YAML reads `no` as false.
OFF = {"eval_strategy": "no", "save_strategy": "no", "logging_strategy": "no", "report_to": "none"}

#: Texts that are read, with errors of their own, where they are used.
PARSED_LATER = ("pipeline_kwargs", "reward_kwargs")


def check_values(options: Any) -> None:
    """
    Convert the values of a dataclass to the types of its fields where only one thing can be meant, and check their limits.

    A single value stands for a list of one, `64.0` and `"64"` for 64, and `"1e-4"`, which YAML reads as a text, for 0.0001.

    Raises:
        [`ConfigError`]: another value; the message says what was given, and what form it must have.
    """
    hints = get_type_hints(type(options))
    for field in fields(options):
        given = vars(options).get(field.name)
        value = _converted(field, given, hints[field.name])
        limit = LIMIT_OF.get(field.name)
        if limit is not None and value is not None and not limit.allows(value):
            raise ConfigError(f"{field.name} is {value}; it must be {limit.text}.")
        if field.name not in UNBOUNDED and _is_infinite(value):
            raise ConfigError(f"{field.name} is {value}; it must be finite.")
        if value is not given:
            setattr(options, field.name, value)


@dataclass
class CheckedOptions:
    """Options whose values are checked when they are made. See [`check_values`]."""

    def __post_init__(self) -> None:
        check_values(self)


def _converted(field: Field[Any], value: Any, hint: Any) -> Any:
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
        convert = _mapping if field.name in PARSED_LATER else _mapping_or_json
    else:
        return value  # of one of several types: transformers reads it
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError) as error:
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


def _is_infinite(value: Any) -> bool:
    return any(map(_is_infinite, value)) if isinstance(value, list) else isinstance(value, float) and math.isinf(value)


def _text(value: Any) -> str:
    if not isinstance(value, str | Path):
        raise TypeError(value)
    return value if isinstance(value, str) else str(value)


def _mapping_or_json(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        json.loads(value)
    return _mapping(value)


def _mapping(value: Any) -> Any:
    if isinstance(value, list | tuple | set | numbers.Number):
        raise TypeError(value)
    return value  # or an object of a class of its own, as transformers allows


CONVERTERS: dict[Any, Callable[[Any], Any]] = {bool: _truth, int: _whole, float: _number, str: _text}

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
MANY = {int: "a list of whole numbers, such as [0, 1]", float: "a list of numbers, such as [1.0, 0.5]"}


def _wrong(field: Field[Any], value: Any, kinds: set[Any]) -> ConfigError:
    """Return the error for a value of another type: a single one, a list of them, or a mapping."""
    kinds = kinds - {NoneType}
    if len(kinds) > 1:  # a mapping or a text; the value is not shown, because it may hold a key
        return ConfigError(f"{field.name} is a {type(value).__name__}; it must be a mapping, or JSON.")
    (kind,) = kinds
    if get_origin(kind) is list:
        form = MANY.get(get_args(kind)[0], "a list of texts, such as ['a', 'b']")
    else:
        form = WORDS[kind] + (f", such as {field.default!r}" if isinstance(field.default, int | float | str) else "")
    return ConfigError(f"{field.name} is {value!r} ({type(value).__name__}); it must be {form}.")
