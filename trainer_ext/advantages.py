"""Turn rewards into advantages."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

EPS = 1e-6  #: keeps the division finite, in units of the reward


@dataclass(frozen=True)
class Advantages:
    """
    Parameters:
        values (`np.ndarray` of shape `(B,)`, float64):
            One for each image; 0 for an image without a reward.
        frac_reward_zero_std (`float`):
            Share of the prompts whose rewards do not differ, so that they teach nothing.
    """

    values: FloatArray
    frac_reward_zero_std: float


class PerPromptStatTracker:
    """
    Standardises rewards with the mean and standard deviation of their prompt (Black et al., 2023, section 5).

    For each prompt the last `buffer_size` rewards are kept. A prompt with fewer than `min_count` uses the statistics of
    the whole batch instead. Statistics are the population's, in float64, and include the rewards that they standardise.

    Args:
        buffer_size (`int`):
            Rewards remembered for each prompt.
        min_count (`int`):
            Rewards of its own that a prompt needs.
    """

    def __init__(self, buffer_size: int, min_count: int):
        self.buffer_size = buffer_size
        self.min_count = min_count
        self._buffers: dict[str, deque[float]] = {}

    def update(self, prompts: Sequence[str], rewards: FloatArray) -> Advantages:
        """
        Remember the rewards, then standardise them.

        Args:
            prompts (`Sequence[str]` of length B):
                The prompt of each image, from every process.
            rewards (`np.ndarray` of shape `(B,)`, float64):
                NaN where an image has no reward: it is left out of the statistics and gets advantage 0.
        """
        scored = np.isfinite(rewards)
        for prompt, reward in zip(prompts, rewards, strict=True):
            if np.isfinite(reward):
                self._buffers.setdefault(prompt, deque(maxlen=self.buffer_size)).append(float(reward))
        batch = _statistics(rewards[scored]) if scored.any() else (0.0, 0.0)
        by_prompt = {prompt: self._statistics_of(prompt, batch) for prompt in dict.fromkeys(prompts)}
        values = np.array([standardise(r, *by_prompt[p]) for p, r in zip(prompts, rewards, strict=True)], np.float64)
        silent = sum(std == 0 for _, std in by_prompt.values())
        return Advantages(values, silent / len(by_prompt) if by_prompt else 0.0)

    def _statistics_of(self, prompt: str, batch: tuple[float, float]) -> tuple[float, float]:
        buffer = self._buffers.get(prompt, ())
        return _statistics(np.array(buffer)) if len(buffer) >= self.min_count else batch

    def state_dict(self) -> dict[str, list[float]]:
        """Return the remembered rewards by prompt, for a checkpoint."""
        return {prompt: list(buffer) for prompt, buffer in self._buffers.items()}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Take up the rewards that [`state_dict`] returned."""
        self._buffers = {prompt: deque(rewards, maxlen=self.buffer_size) for prompt, rewards in state.items()}


def standardise(reward: float, mean: float, std: float) -> float:
    """
    Return (reward - mean) / (std + 1e-6), and 0 where that means nothing: without a reward, or where rewards are equal.

    Without the second rule, a std of rounding errors would turn equal rewards into large advantages.
    """
    if not np.isfinite(reward) or std == 0:
        return 0.0
    return (reward - mean) / (std + EPS)


def _statistics(rewards: FloatArray) -> tuple[float, float]:
    """Mean and population standard deviation; the latter exactly 0 if the rewards are equal."""
    return float(rewards.mean()), 0.0 if (rewards == rewards[0]).all() else float(rewards.std())
