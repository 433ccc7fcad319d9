"""Rewards and detectors of a batch of images, held to their contract: finite floats, one for each image, or a named error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddpo_plugins.contract import RewardLog
from ddpo_plugins.errors import RewardError
from ddpo_plugins.names import DETECTORS, REWARDS
from ddpo_plugins.values import LARGEST

from ..errors import ConfigError
from ..types import FloatArray
from .batch import Batch
from .calls import Calls, Order
from .functions import DetectorFunction, ImageFunction, RewardFunction
from .scores import Scores


class RewardSuite:
    """
    Several rewards as one weighted sum, and detectors beside them.

    Args:
        functions (`Sequence[RewardFunction]`):
            The rewards, at least one.
        weights (`Sequence[float]`, *optional*):
            One for each function; all 1 by default.
        detectors (`Sequence[DetectorFunction]`, *optional*):
            Detectors that look at the same images.
        detector_weights (`Sequence[float]`, *optional*):
            Weight with which each detector is added to the sum; without weights, or with 0, it only watches.
        calls ([`Calls`], *optional*):
            Makes the calls; several suites that share it share its event loop.

    Raises:
        [`ConfigError`]: there is no function, two have one name, or the number of weights is wrong.
    """

    def __init__(
        self,
        functions: Sequence[RewardFunction],
        weights: Sequence[float] | None = None,
        detectors: Sequence[DetectorFunction] = (),
        detector_weights: Sequence[float] | None = None,
        calls: Calls | None = None,
    ):
        if not functions:
            raise ConfigError("No reward function was given; pass at least one in `reward_funcs`.")
        for kind in (functions, detectors):
            _check_names(kind)
        self.functions = tuple(functions)
        self.detectors = tuple(detectors)
        self.weights = _one_each("reward_weights", weights, self.functions, 1.0)
        self.detector_weights = _one_each("detector_weights", detector_weights, self.detectors, 0.0)
        self.calls = Calls() if calls is None else calls
        self._kinds: dict[str, str] = {}  # of the columns that functions log

    def __repr__(self) -> str:
        weighted = [f"{weight:g} * {name}" for name, weight in zip(self.names, self.weights, strict=True)]
        detectors = zip(self.detector_names, self.detector_weights, strict=True)
        weighted += [f"{weight:g} * detector {name}" for name, weight in detectors if weight]
        watching = [name for name, weight in zip(self.detector_names, self.detector_weights, strict=True) if not weight]
        only = f"; watching: {', '.join(watching)}" if watching else ""
        return f"{type(self).__name__}({' + '.join(weighted)}{only})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rewards, in order."""
        return tuple(function.name for function in self.functions)

    @property
    def detector_names(self) -> tuple[str, ...]:
        """Names of the detectors, in order."""
        return tuple(detector.name for detector in self.detectors)

    @property
    def objectives(self) -> dict[str, float]:
        """The objectives of training: the weight of each reward, and of each detector if not 0, by column in the records."""
        rewards = {f"{REWARDS}{name}": weight for name, weight in zip(self.names, self.weights, strict=True)}
        detectors = zip(self.detector_names, self.detector_weights, strict=True)
        return rewards | {f"{DETECTORS}{name}": weight for name, weight in detectors if weight}

    @property
    def objective_weights(self) -> FloatArray:
        """Weights of the objectives, in order."""
        return np.array(list(self.objectives.values()), np.float64)

    @property
    def without_detectors(self) -> RewardSuite:
        """The rewards alone."""
        return RewardSuite(self.functions, self.weights.tolist(), calls=self.calls)

    def score(
        self,
        images: torch.Tensor,
        rows: Sequence[Mapping[str, Any]],
        trainer_state: Any = None,
        detector_every: int = 1,
    ) -> Scores:
        """
        Call every reward and detector on a batch.

        Args:
            images (`torch.Tensor` of shape `(B, H, W, 3)`, uint8):
                RGB.
            rows (`Sequence[Mapping[str, Any]]` of length B):
                The dataset row of each image.
            trainer_state (`TrainerState`, *optional*):
                Handed to the functions.
            detector_every (`int`, *optional*, defaults to 1):
                Detectors that only watch look at each n-th image, from the first on; for the others they have no value.

        Raises:
            [`RewardError`]: a function raised an error, or did not return B values that are finite numbers or `None`; or a
                detector returned a number outside [0, 1].
        """
        log, batch = RewardLog(len(images), self._kinds), Batch(images, rows, trainer_state)
        watched = range(0, len(batch), detector_every)
        returned = self.calls.call_all(self._orders(batch, log, watched))
        values = np.array(returned[: len(self.functions)], np.float64).T
        seen = [_of_all(found, watched, len(batch)) for found in returned[len(self.functions) :]]
        total = weighted_total(values, self.weights)
        for weight, column in zip(self.detector_weights, seen, strict=True):
            total = total + weight * np.nan_to_num(column)  # a detector that cannot judge an image adds nothing
        self._check_total(total, values, batch)
        detections = dict(zip(self.detector_names, seen, strict=True))
        return Scores(self.names, values, total, dict(log.extras), dict(log.metrics), detections)

    def _orders(self, batch: Batch, log: RewardLog, watched: range) -> list[Order]:
        part, part_log = batch.part(watched), log.part(watched)
        rewards = [Order(function, batch, log) for function in self.functions]
        detectors = [
            Order(detector, batch, log) if weight else Order(detector, part, part_log)
            for detector, weight in zip(self.detectors, self.detector_weights, strict=True)
        ]
        return [*rewards, *detectors]

    def _check_total(self, total: FloatArray, values: FloatArray, batch: Batch) -> None:
        overflown = ~(np.abs(total) <= LARGEST) & ~_is_missing(values, self.weights)
        for image in np.flatnonzero(overflown):
            raise RewardError(
                f"The weighted sum of the rewards is {total[image]} for prompt {batch.prompts[image]!r}: "
                f"{dict(zip(self.names, values[image].tolist(), strict=True))} with reward_weights "
                f"{self.weights.tolist()}. Use smaller weights; the sum must be finite and fit in a float32."
            )


def weighted_total(values: FloatArray, weights: FloatArray) -> FloatArray:
    """
    Sum rewards `(B, K)` with weights `(K,)`, leaving out missing ones; NaN where all are missing that have a weight.

    A reward of weight 0 is only looked at: it cannot stand for those that are trained on.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name
        total = np.nansum(values * weights, axis=1)
    total[_is_missing(values, weights)] = np.nan
    return total


def _is_missing(values: FloatArray, weights: FloatArray) -> NDArray[np.bool_]:
    """Return whether all rewards of an image are missing that have a weight, `(B,)`."""
    return np.asarray(np.isnan(values[:, weights != 0] if weights.any() else values).all(axis=1))


def _of_all(found: list[float], watched: range, number: int) -> FloatArray:
    """Spread a detector's values over all images of which it saw all, or those that are watched; `(B,)`, NaN elsewhere."""
    values = np.full(number, np.nan)
    values[slice(None) if len(found) == number else watched] = found
    return values


def _check_names(functions: Sequence[ImageFunction]) -> None:
    names = [function.name for function in functions]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"Two {functions[0].kind}s have the same name ({', '.join(names)}); rename one, so that logs tell them apart."
        )


def _one_each(
    option: str, weights: Sequence[float] | None, functions: Sequence[ImageFunction], default: float
) -> FloatArray:
    if weights is not None and len(weights) != len(functions):
        kind = option.removesuffix("_weights")
        names = ", ".join(function.name for function in functions)
        raise ConfigError(
            f"{option} has {len(weights)} value(s) for {len(functions)} {kind}(s) ({names or 'none'}); give one each."
        )
    return np.array([default] * len(functions) if weights is None else weights, np.float64)
