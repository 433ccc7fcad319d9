"""Algorithms by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..options import DDPOOptions
from .algorithm import Algorithm
from .policy_gradient import ImportanceSampling, ScoreFunction
from .regression import RewardWeightedRegression, SparseRewardWeightedRegression


@dataclass(frozen=True)
class NamedAlgorithm:
    """
    An algorithm that options can name.

    Parameters:
        kind (`type[Algorithm]`):
            Its class.
        build (`Callable`):
            Makes one from a run's options.
    """

    kind: type[Algorithm[Any, Any]]
    build: Callable[[DDPOOptions], Algorithm[Any, Any]]


ALGORITHMS: dict[str, NamedAlgorithm] = {
    named.kind.name: named
    for named in (
        NamedAlgorithm(ImportanceSampling, lambda options: ImportanceSampling(options.clip_range)),
        NamedAlgorithm(ScoreFunction, lambda options: ScoreFunction()),
        NamedAlgorithm(RewardWeightedRegression, lambda options: RewardWeightedRegression(options.rwr_beta)),
        NamedAlgorithm(
            SparseRewardWeightedRegression, lambda options: SparseRewardWeightedRegression(options.rwr_quantile)
        ),
    )
}


def resolve_algorithm(algorithm: str | Algorithm[Any, Any] | None, options: DDPOOptions) -> Algorithm[Any, Any]:
    """
    Turn a name into an algorithm with the run's options; `None` is the one that the options name.

    Raises:
        [`ConfigError`]: there is no algorithm of that name, or something else was given.
    """
    if isinstance(algorithm, Algorithm):
        return algorithm
    name = options.algorithm if algorithm is None else algorithm
    if not isinstance(name, str) or name not in ALGORITHMS:
        raise ConfigError(
            f"algorithm is {name!r}; it must be one of {', '.join(ALGORITHMS)}, or an object of a subclass of "
            "trainer_ext.Algorithm."
        )
    return ALGORITHMS[name].build(options)
