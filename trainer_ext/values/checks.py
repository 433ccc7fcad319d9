"""One pass over the values of options, before anything is done with them: each has its type, and is within its limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from ..errors import ConfigError
from .conversion import converted, is_infinite


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
        "eval_images_per_prompt detector_every rows_per_forward sde_window_size reference_reset",
    ),
    Limit(
        "greater than 0",
        lambda value: value > 0,
        "clip_range kl_threshold advantage_clip rwr_beta nft_strength keep_images_gb learning_rate adam_epsilon "
        "num_train_epochs save_steps logging_steps eval_steps ddp_timeout reference_reset_kl",
    ),
    Limit(
        "at least 0",
        lambda value: value >= 0,
        "weight_decay max_grad_norm warmup_steps warmup_ratio eval_delay",
    ),
    Limit("0, which turns it off, or more", lambda value: value >= 0, "num_sample_images sample_every"),
    Limit("0, for no such term in the loss, or greater", lambda value: value >= 0, "beta"),
    Limit("in (0, 1]", lambda value: 0 < value <= 1, "timestep_fraction keep_images"),
    Limit("in [0, 1)", lambda value: 0 <= value < 1, "adam_beta1 adam_beta2"),
    Limit("in [0, 1), such as 0.9 for the best tenth", lambda value: 0 <= value < 1, "rwr_quantile"),
    Limit("in (0, 1), or left out for no moving average", lambda value: 0 < value < 1, "ema_decay"),
    Limit("from 0 to 2**32 - 1", lambda value: 0 <= value < 2**32, "seed"),
    Limit("at least 1, or -1 for num_train_epochs", lambda value: value >= 1 or value == -1, "max_steps"),
)
LIMIT_OF = {name: limit for limit in LIMITS for name in limit.names.split()}


#: Infinity turns these off.
UNBOUNDED = ("max_grad_norm", "clip_range", "kl_threshold", "advantage_clip", "reward_timeout", "keep_images_gb")


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
        value = converted(field, given, hints[field.name])
        limit = LIMIT_OF.get(field.name)
        if limit is not None and value is not None and not limit.allows(value):
            raise ConfigError(f"{field.name} is {value}; it must be {limit.text}.")
        if field.name not in UNBOUNDED and is_infinite(value):
            raise ConfigError(f"{field.name} is {value}; it must be finite.")
        if value is not given:
            setattr(options, field.name, value)


@dataclass
class CheckedOptions:
    """Options whose values are checked when they are made. See [`check_values`]."""

    def __post_init__(self) -> None:
        check_values(self)
