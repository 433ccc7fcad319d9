"""Calls reward functions and holds them to their contract: finite floats, one for each image, or a named error."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ddpo_plugins.contract import RewardLog, check_rewards
from ddpo_plugins.errors import RewardError

from .advantages import FloatArray
from .errors import ConfigError


@dataclass(frozen=True)
class RewardFunction:
    """
    A reward with its name.

    Parameters:
        name (`str`):
            As it is logged.
        function (`Callable`):
            Called with `images`, `prompts` and the other dataset columns as keywords; returns B floats or `None`s.
        images (`"pil"` or `"pt"`):
            What it takes: RGB PIL images, or a float32 tensor `(B, 3, H, W)` in [0, 1].
    """

    name: str
    function: Callable[..., Any]
    images: Literal["pil", "pt"] = "pil"

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(f"Reward {self.name!r} is a {type(self.function).__name__}; it must be a function.")
        parameters = inspect.signature(self.function).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            raise ConfigError(
                f"Reward {self.name!r} takes only ({', '.join(p.name for p in parameters)}). Rewards are called by keyword "
                "with `images`, `prompts`, every column of the dataset and more: define it as "
                "`def reward(images, prompts, **columns)`."
            )


@dataclass(frozen=True)
class Scores:
    """
    The rewards of B images.

    Parameters:
        names (`tuple[str, ...]` of length K):
            Of the reward functions.
        values (`np.ndarray` of shape `(B, K)`, float64):
            NaN where a function gave no reward.
        total (`np.ndarray` of shape `(B,)`, float64):
            Weighted sum; NaN where no function gave a reward.
        extras (`Mapping[str, list]`):
            What rewards logged for each image, by name.
        metrics (`Mapping[str, float]`):
            What rewards logged about the batch, by name.
    """

    names: tuple[str, ...]
    values: FloatArray
    total: FloatArray
    extras: Mapping[str, list[Any]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean of the totals; NaN if no image has a reward."""
        rewarded = self.total[~np.isnan(self.total)]
        return float(rewarded.mean()) if len(rewarded) else math.nan

    @staticmethod
    def concatenate(parts: Sequence[Scores]) -> Scores:
        """Join the batches of one rollout: metrics are averaged; extras are `None` where a batch logged none."""
        extras = {
            name: [value for part in parts for value in part.extras.get(name, [None] * len(part.total))]
            for name in dict.fromkeys(name for part in parts for name in part.extras)
        }
        metrics = {
            name: float(np.mean([part.metrics[name] for part in parts if name in part.metrics]))
            for name in dict.fromkeys(name for part in parts for name in part.metrics)
        }
        values, total = np.concatenate([p.values for p in parts]), np.concatenate([p.total for p in parts])
        return Scores(parts[0].names, values, total, extras, metrics)


class RewardSuite:
    """
    Several rewards as one weighted sum.

    Args:
        functions (`Sequence[RewardFunction]`):
            At least one, with different names.
        weights (`Sequence[float]`, *optional*):
            One for each function; all 1 by default.

    Raises:
        [`ConfigError`]: no function, a name twice, or a wrong number of weights.
    """

    def __init__(self, functions: Sequence[RewardFunction], weights: Sequence[float] | None = None):
        names = [function.name for function in functions]
        if not functions:
            raise ConfigError("No reward function was given; pass at least one in `reward_funcs`.")
        if len(set(names)) < len(names):
            raise ConfigError(
                f"Two rewards have the same name ({', '.join(names)}); rename one, so that logs tell them apart."
            )
        if weights is not None and len(weights) != len(functions):
            raise ConfigError(
                f"reward_weights has {len(weights)} value(s) for {len(functions)} reward(s) ({', '.join(names)}); give one each."
            )
        self.functions = tuple(functions)
        self.weights = np.array(weights if weights is not None else [1.0] * len(functions), np.float64)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the functions, in order."""
        return tuple(function.name for function in self.functions)

    def score(self, images: torch.Tensor, rows: Sequence[Mapping[str, Any]], trainer_state: Any = None) -> Scores:
        """
        Call every reward on a batch.

        Args:
            images (`torch.Tensor` of shape `(B, H, W, 3)`, uint8):
                RGB.
            rows (`Sequence[Mapping[str, Any]]` of length B):
                The dataset row of each image.
            trainer_state (`TrainerState`, *optional*):
                Handed to the rewards.

        Raises:
            [`RewardError`]: a reward raised, or returned something else than B finite numbers or `None`s.
        """
        log = RewardLog(len(images))
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
        common = {
            **columns,
            "prompts": [row["prompt"] for row in rows],
            "trainer_state": trainer_state,
            "log_metric": log.metric,
            "log_extra": log.extra,
        }
        forms = _image_forms(images, {function.images for function in self.functions})
        returned = [_call(function, {**common, "images": forms[function.images]}) for function in self.functions]
        if any(map(inspect.isawaitable, returned)):
            returned = _wait(_settle(self.functions, returned))
        values = np.array(
            [check_rewards(f.name, r, common["prompts"]) for f, r in zip(self.functions, returned, strict=True)]
        ).T
        return Scores(self.names, values, weighted_total(values, self.weights), log.extras, log.metrics)


def weighted_total(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Sum rewards `(B, K)` with weights `(K,)`, leaving out missing ones; NaN where all of an image's are missing."""
    total = np.nansum(values * weights, axis=1)
    total[np.isnan(values).all(axis=1)] = np.nan
    return total


def _image_forms(images: torch.Tensor, wanted: set[str]) -> dict[str, Any]:
    forms: dict[str, Any] = {}
    if "pil" in wanted:
        forms["pil"] = to_pil(images)
    if "pt" in wanted:
        forms["pt"] = images.permute(0, 3, 1, 2).float() / 255
    return forms


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    """Turn uint8 images `(B, H, W, 3)` into PIL images."""
    return [Image.fromarray(image) for image in images.numpy()]


def _call(function: RewardFunction, arguments: Mapping[str, Any]) -> Any:
    try:
        return function.function(**arguments)
    except (Exception, SystemExit) as error:
        raise _raised(function, error) from error


def _wait(settled: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    """Run a coroutine to its end, also where a notebook's event loop is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(settled)
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(asyncio.run, settled).result()


async def _settle(functions: Sequence[RewardFunction], values: Sequence[Any]) -> list[Any]:
    """Await the rewards that are `async def`, all at once."""
    return list(await asyncio.gather(*(_await(f, value) for f, value in zip(functions, values, strict=True))))


async def _await(function: RewardFunction, value: Awaitable[Any] | Any) -> Any:
    if not inspect.isawaitable(value):
        return value
    try:
        return await value
    except (Exception, SystemExit) as error:
        raise _raised(function, error) from error


def _raised(function: RewardFunction, error: BaseException) -> RewardError:
    return RewardError(
        f"Reward {function.name!r} raised {type(error).__name__}: {error}. Training stops, because a failed reward must not "
        "become a number; mend the reward and resume from the last checkpoint."
    )


def named_rewards(
    reward_funcs: Callable[..., Any] | RewardFunction | Sequence[Callable[..., Any] | RewardFunction],
) -> list[RewardFunction]:
    """Give plain functions the name they were defined with."""
    functions = (
        reward_funcs if isinstance(reward_funcs, Sequence) and not isinstance(reward_funcs, str) else [reward_funcs]
    )
    return [f if isinstance(f, RewardFunction) else RewardFunction(_name_of(f), f) for f in functions]


def _name_of(function: Any) -> str:
    if isinstance(function, str):
        raise ConfigError(
            f"reward_funcs holds the text {function!r}; the trainer takes functions. Turn a plugin's name into one with "
            f"trainer_ext.reward_from_plugin({function!r}), or use the command line, which does."
        )
    return function.__name__ if inspect.isroutine(function) else type(function).__name__
