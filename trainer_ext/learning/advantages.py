"""Turns rewards into advantages. Each class compares a reward with other rewards."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ddpo_plugins.prompt_rows import images_of

from ..types import FloatArray

Statistics = tuple[float, float]  #: mean and population standard deviation

EPS = 1e-6  #: keeps the division finite, in units of the reward


@dataclass(frozen=True)
class Advantages:
    """
    The weights of a rollout's images.

    Parameters:
        values (`np.ndarray` of shape `(B,)`, float64):
            One for each image; 0 for an image without a reward.
        frac_reward_zero_std (`float`):
            Share of the prompts whose rewards do not differ, so that they teach nothing.
    """

    values: FloatArray
    frac_reward_zero_std: float


class Baseline(Protocol):
    """The rewards that a reward is compared with."""

    def update(self, prompts: Sequence[str], rewards: FloatArray) -> Advantages:
        """
        Remember the rewards of a rollout and return their advantages.

        Args:
            prompts (`Sequence[str]` of length B):
                The prompt of each image, from every process.
            rewards (`np.ndarray` of shape `(B,)`, float64):
                NaN where an image has no reward: it is left out of the statistics and gets advantage 0.
        """

    def state_dict(self) -> dict[str, list[float]]:
        """Return the memory that lasts from rollout to rollout, for a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restore what [`state_dict`] returned."""


class PerPromptStatTracker:
    """
    Compares with the last rewards of the prompt (Black et al., 2023, section 5).

    For each prompt the last `buffer_size` rewards are kept. A prompt with fewer than `min_count` uses the statistics of
    the whole batch instead. Statistics are those of a population, in float64, and include the rewards that they standardise.

    Args:
        buffer_size (`int`):
            Rewards remembered for each prompt.
        min_count (`int`):
            Number of its own rewards that a prompt needs.
        scale (`bool`, *optional*, defaults to `True`):
            Divide by the standard deviation.
    """

    def __init__(self, buffer_size: int, min_count: int, scale: bool = True):
        self.buffer_size = buffer_size
        self.min_count = min_count
        self.scale = scale
        self._buffers: dict[str, deque[float]] = {}

    def update(self, prompts: Sequence[str], rewards: FloatArray) -> Advantages:
        """Remember the rewards, then compare them. See [`Baseline.update`]."""
        for prompt, reward in zip(prompts, rewards, strict=True):
            if np.isfinite(reward):
                self._buffers.setdefault(prompt, deque(maxlen=self.buffer_size)).append(float(reward))
        batch = _statistics(rewards)
        return _compare(
            prompts, rewards, {p: self._statistics_of(p, batch) for p in dict.fromkeys(prompts)}, self.scale
        )

    def _statistics_of(self, prompt: str, batch: Statistics) -> Statistics:
        buffer = self._buffers.get(prompt, ())
        return _statistics(np.array(buffer)) if len(buffer) >= self.min_count else batch

    def state_dict(self) -> dict[str, list[float]]:
        """Return the remembered rewards by prompt."""
        return {prompt: list(buffer) for prompt, buffer in self._buffers.items()}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restore the rewards that [`state_dict`] returned."""
        self._buffers = {prompt: deque(rewards, maxlen=self.buffer_size) for prompt, rewards in state.items()}


class BatchBaseline:
    """Compares with all rewards of the rollout, of any prompt."""

    def __init__(self, scale: bool = True):
        self.scale = scale

    def update(self, prompts: Sequence[str], rewards: FloatArray) -> Advantages:
        """See [`Baseline.update`]."""
        return _compare(prompts, rewards, dict.fromkeys(prompts, _statistics(rewards)), self.scale)

    def state_dict(self) -> dict[str, list[float]]:
        """Remember nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Remember nothing."""


class GroupBaseline(BatchBaseline):
    """Compares with the rewards of the prompt's images in this rollout (GRPO: Shao et al., 2024, section 4.1)."""

    def update(self, prompts: Sequence[str], rewards: FloatArray) -> Advantages:
        """See [`Baseline.update`]."""
        statistics = {prompt: _statistics(rewards[rows]) for prompt, rows in images_of(prompts).items()}
        return _compare(prompts, rewards, statistics, self.scale)


class GroupOverBatchBaseline(BatchBaseline):
    """
    Compares with the prompt's images, and divides by the standard deviation of the whole rollout (Flow-GRPO's default).

    So a group whose rewards hardly differ teaches little, where dividing by its own standard deviation would blow up its noise.
    """

    def update(self, prompts: Sequence[str], rewards: FloatArray) -> Advantages:
        """See [`Baseline.update`]."""
        overall = _statistics(rewards)[1]
        groups = {prompt: _statistics(rewards[rows]) for prompt, rows in images_of(prompts).items()}
        statistics = {prompt: (mean, std and overall) for prompt, (mean, std) in groups.items()}
        return _compare(prompts, rewards, statistics, self.scale)


class WinRateBaseline(GroupBaseline):
    """Compares the shares of its group that images beat, instead of their rewards (Pref-GRPO, arXiv:2508.20751)."""

    def update(self, prompts: Sequence[str], rewards: FloatArray) -> Advantages:
        """See [`Baseline.update`]."""
        won = np.full(len(rewards), np.nan)
        for rows in images_of(prompts).values():
            won[rows] = win_rates(rewards[rows])
        return super().update(prompts, won)


def win_rates(rewards: FloatArray) -> FloatArray:
    """
    Return the share of the other images of a group `(n,)` that each beats, where a tie counts half; NaN without a reward.

    An image that is alone has beaten half.
    """
    rates, scored = np.full(len(rewards), np.nan), np.isfinite(rewards)
    own, ordered = rewards[scored], np.sort(rewards[scored])
    worse, no_better = ordered.searchsorted(own), ordered.searchsorted(own, side="right")
    rates[scored] = (worse + no_better - 1) / 2 / (len(own) - 1) if len(own) > 1 else 0.5  # -1: itself, a tie
    return rates


def standardise(reward: float, mean: float, std: float, scale: bool = True) -> float:
    """
    Return (reward - mean) / (std + 1e-6), or 0 where that is meaningless: without a reward, or where rewards are equal.

    Without the second rule, a std of rounding errors would turn equal rewards into large advantages. Without `scale`,
    return reward - mean.
    """
    if not np.isfinite(reward) or std == 0:
        return 0.0
    return (reward - mean) / (std + EPS if scale else 1.0)


def _compare(
    prompts: Sequence[str], rewards: FloatArray, statistics: Mapping[str, Statistics], scale: bool
) -> Advantages:
    values = [standardise(r, *statistics[p], scale) for p, r in zip(prompts, rewards, strict=True)]
    num_constant = sum(std == 0 for _, std in statistics.values())
    return Advantages(np.array(values, np.float64), num_constant / len(statistics) if statistics else 0.0)


def _statistics(rewards: FloatArray) -> Statistics:
    """Return the statistics of the rewards that are not missing. The standard deviation of equal ones is exactly 0."""
    rewards = rewards[np.isfinite(rewards)]
    if not len(rewards) or (rewards == rewards[0]).all():
        return (float(rewards[0]) if len(rewards) else 0.0), 0.0
    return float(rewards.mean()), float(rewards.std())
