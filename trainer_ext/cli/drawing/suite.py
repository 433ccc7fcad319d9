"""Rewards and detectors that a command names, ready to judge images outside of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...scoring.suite import RewardSuite


def build_suite(
    rewards: Sequence[str],
    device: str,
    weights: list[float] | None = None,
    detectors: Sequence[str] = (),
    detector_weights: list[float] | None = None,
    kwargs: Mapping[str, Any] | str | None = None,
) -> RewardSuite:
    """
    Build rewards and detectors from the names and options that the command line gives.

    Raises:
        [`ConfigError`], [`UnknownNameError`], [`FactoryError`]: one does not exist, or cannot be built.
    """
    from ...plugins import functions_from_plugins, installed_plugins
    from ...scoring.suite import RewardSuite
    from ..training.build import reward_kwargs

    given = reward_kwargs(kwargs if isinstance(kwargs, str) or kwargs is None else dict(kwargs))
    found, watching = functions_from_plugins(dict.fromkeys(rewards), detectors, given, device, installed_plugins())
    return RewardSuite(list(found.values()), weights, list(watching.values()), detector_weights)


def default_device() -> str:
    """Return the device on which images are drawn that no device was named for: the GPU, if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
