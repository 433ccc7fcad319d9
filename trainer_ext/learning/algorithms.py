"""Algorithms by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import ConfigError
from ..options import DDPOOptions, clip_range_of
from ..policy.transitions.samplers import OWN
from .algorithm import Algorithm
from .bounds.flow_dppo import DivergenceMasked
from .bounds.grpo_guard import GuardedImportanceSampling
from .matching import AdvantageWeightedMatching, NegativeAwareFineTuning
from .policy_gradient import ImportanceSampling, ScoreFunction
from .regression import Regression, RewardWeightedRegression, SparseRewardWeightedRegression


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
        NamedAlgorithm(
            ImportanceSampling, lambda options: ImportanceSampling(clip_range_of("ddpo_is", options.clip_range))
        ),
        NamedAlgorithm(ScoreFunction, lambda options: ScoreFunction()),
        NamedAlgorithm(
            RewardWeightedRegression,
            lambda options: RewardWeightedRegression(options.rwr_beta, options.rwr_resample),
        ),
        NamedAlgorithm(
            SparseRewardWeightedRegression, lambda options: SparseRewardWeightedRegression(options.rwr_quantile)
        ),
        NamedAlgorithm(AdvantageWeightedMatching, lambda options: AdvantageWeightedMatching(options.advantage_clip)),
        NamedAlgorithm(
            NegativeAwareFineTuning,
            lambda options: NegativeAwareFineTuning(options.advantage_clip, options.nft_strength),
        ),
        NamedAlgorithm(
            GuardedImportanceSampling,
            lambda options: GuardedImportanceSampling(clip_range_of("grpo_guard", options.clip_range)),
        ),
        NamedAlgorithm(DivergenceMasked, lambda options: DivergenceMasked(options.kl_threshold)),
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


class Sizes(Protocol):
    """The options of a run that decide which algorithms can run with them."""

    advantages: str
    beta: float
    diversity_shaping: str | None
    eta: float
    rwr_resample: bool
    sampler: str | None
    num_images_per_prompt: int
    num_images_per_rollout: int
    per_device_train_batch_size: int

    @property
    def world_size(self) -> int:
        """Number of processes that train together."""

    @property
    def updates_per_rollout(self) -> int:
        """Optimizer updates between two rollouts."""


def check_kind(kind: type[Algorithm[Any, Any]], options: Sizes) -> None:
    """
    Check that an algorithm can run with a run's options.

    Raises:
        [`ConfigError`]: they ask for several updates on a rollout, for a divergence from the model before training, or for steps
            without a log-probability, and the algorithm allows none.
    """
    if options.beta and kind.divergence is Algorithm.divergence:
        raise ConfigError(
            f"beta is {options.beta} and the algorithm is {kind.name!r}, which defines no distance from the model before "
            "training. Set beta=0, or define its method divergence."
        )
    if options.diversity_shaping is not None and issubclass(kind, Regression):
        raise ConfigError(
            f"diversity_shaping is {options.diversity_shaping!r} and the algorithm is {kind.name!r}, which has no advantages; "
            "use one that has them, such as 'ddpo_is' or 'nft'."
        )
    if options.rwr_resample and not issubclass(kind, RewardWeightedRegression):
        raise ConfigError(
            f"rwr_resample is True and the algorithm is {kind.name!r}, which does not draw images by their weights. Set "
            "algorithm='rwr', or leave rwr_resample out."
        )
    if kind.policy_gradient:
        _check_log_probs(kind, options)
    if kind.one_update and options.updates_per_rollout != 1:
        raise ConfigError(
            f"The algorithm {kind.name!r} allows one update on a rollout: its gradient is that of the policy that sampled; "
            f"these options make {options.updates_per_rollout}. Set gradient_accumulation_steps="
            f"{options.num_images_per_rollout // (options.per_device_train_batch_size * options.world_size)} and "
            "num_inner_epochs=1, or use 'ddpo_is'."
        )


def check_groups(algorithm: Algorithm[Any, Any], options: Sizes, prompts: Sequence[str]) -> None:
    """
    Check that images have others to be weighed against, given the prompt of each row of the dataset, which are used in turn.

    Raises:
        [`ConfigError`]: a regression weighs the images of a prompt, and a rollout has one of each.
    """
    per_prompt = isinstance(algorithm, Regression) and options.advantages != "batch"
    if not per_prompt or options.num_images_per_prompt > 1:
        return
    images, different = options.num_images_per_rollout, len(set(prompts))
    if images <= different:
        raise ConfigError(
            f"{algorithm.name!r} weighs the images of a prompt against each other, and a rollout has one image of each: "
            f"num_images_per_prompt is {options.num_images_per_prompt}, and num_images_per_rollout={images} is not more than the "
            f"{different} prompts. All images would have the same weight, however good they are. Set num_images_per_prompt to "
            "2 or more, or advantages='batch'."
        )


def _check_log_probs(kind: type[Algorithm[Any, Any]], options: Sizes) -> None:
    """Raise [`ConfigError`] if with these options no step has a log-probability."""
    free = ", ".join(name for name, named in ALGORITHMS.items() if not named.kind.policy_gradient)
    if not options.eta:
        raise ConfigError(
            f"eta is {options.eta}; it must be in (0, 1] for the algorithm {kind.name!r}. With eta=0 denoising is deterministic "
            f"and has no log-probabilities, so there is no policy to optimise; the paper uses eta=1. {free} need none."
        )
    if options.sampler == OWN:
        raise ConfigError(
            f"sampler is 'own', the pipeline's own scheduler, which has no log-probabilities, and the algorithm is "
            f"{kind.name!r}, which needs them. Leave the sampler out, or use one of {free}."
        )
