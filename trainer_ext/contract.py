"""What a reward may return. No failure ever becomes a number."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ddpo_plugins.errors import RewardError


def check_rewards(name: str, returned: Any, prompts: Sequence[str]) -> list[float]:
    """
    Return the rewards as floats, NaN for `None`.

    Raises:
        [`RewardError`]: the reward broke its contract. No failure ever becomes a number.
    """
    if isinstance(returned, torch.Tensor | np.ndarray):
        if returned.ndim != 1:
            raise RewardError(
                f"Reward {name!r} returned shape {tuple(returned.shape)}; expected ({len(prompts)},), one for each image."
            )
        returned = returned.tolist()
    if not isinstance(returned, list | tuple):
        raise RewardError(
            f"Reward {name!r} returned a {type(returned).__name__}; expected a list of {len(prompts)} floats (None for no "
            "reward) or a tensor of that length."
        )
    if len(returned) != len(prompts):
        raise RewardError(
            f"Reward {name!r} returned {len(returned)} value(s) for {len(prompts)} images; it must return one for each."
        )
    return [_check_reward(name, value, prompt) for value, prompt in zip(returned, prompts, strict=True)]


def _check_reward(name: str, value: Any, prompt: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise RewardError(
            f"Reward {name!r} returned {value!r} ({type(value).__name__}) for prompt {prompt!r}; expected a float or None."
        )
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the floats
        number = math.inf
    if not math.isfinite(number):
        raise RewardError(
            f"Reward {name!r} returned {number} for prompt {prompt!r}. Return None for no reward; numbers must be finite."
        )
    return number
