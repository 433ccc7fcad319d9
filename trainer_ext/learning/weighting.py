"""The training weight of each image of a rollout: its advantage (DDPO), or its weight in a regression (RWR)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpo_plugins.prompt_rows import images_of

from ..options import DDPOOptions
from ..types import FloatArray
from .advantages import (
    Advantages,
    Baseline,
    BatchBaseline,
    GroupBaseline,
    GroupOverBatchBaseline,
    PerPromptStatTracker,
    WinRateBaseline,
)

BASELINES: dict[str, Callable[[DDPOOptions], Baseline]] = {
    "per_prompt": lambda o: PerPromptStatTracker(o.stat_buffer_size, o.stat_min_count, o.scale_rewards),
    "batch": lambda o: BatchBaseline(o.scale_rewards),
    "group": lambda o: GroupBaseline(o.scale_rewards),
    "group_over_batch": lambda o: GroupOverBatchBaseline(o.scale_rewards),
    "win_rate": lambda o: WinRateBaseline(o.scale_rewards),
}
WITHIN_GROUPS = ("group", "group_over_batch", "win_rate")  #: baselines that need several images of a prompt


@dataclass(frozen=True)
class Aggregation:
    """
    How several rewards become one advantage.

    Parameters:
        sum_first (`bool`):
            Whether rewards are summed before they are compared, instead of their advantages.
        over_batch (`bool`, *optional*, defaults to `False`):
            Whether the sum is standardised once more, over the rollout.
    """

    sum_first: bool
    over_batch: bool = False


AGGREGATIONS = {
    "sum_then_normalize": Aggregation(sum_first=True),
    "normalize_then_sum": Aggregation(sum_first=False),
    "gdpo": Aggregation(sum_first=False, over_batch=True),
}


class Weighting(ABC):
    """Turns the rewards of a rollout into one number for each image."""

    @abstractmethod
    def update(self, prompts: Sequence[str], rewards: FloatArray, total: FloatArray) -> Advantages:
        """
        Compute the weights of a rollout's images from their rewards.

        Args:
            prompts (`Sequence[str]` of length B):
                The prompt of each image, from every process.
            rewards (`np.ndarray` of shape `(B, K)`, float64):
                The reward of each function; NaN where there is none.
            total (`np.ndarray` of shape `(B,)`, float64):
                Their weighted sum; NaN where there is none.
        """

    def state_dict(self) -> list[dict[str, list[float]]]:
        """Return the memory that lasts from rollout to rollout, for a checkpoint."""
        return []

    def load_state_dict(self, state: Sequence[Mapping[str, Sequence[float]]]) -> None:  # noqa: B027
        """Restore what [`state_dict`] returned."""


class AdvantageWeighting(Weighting):
    """
    Clipped advantages.

    Args:
        options ([`DDPOOptions`]):
            The run's options, such as `advantages`.
        reward_weights (`np.ndarray` of shape `(K,)`):
            One for each reward function.
    """

    def __init__(self, options: DDPOOptions, reward_weights: FloatArray):
        self.clip = options.advantage_clip
        self.aggregation = AGGREGATIONS[options.multi_objective_aggregation]
        self.reward_weights = np.ones(1) if self.aggregation.sum_first else reward_weights
        self.baselines = [BASELINES[options.advantages](options) for _ in self.reward_weights]

    def update(self, prompts: Sequence[str], rewards: FloatArray, total: FloatArray) -> Advantages:
        """See [`Weighting.update`]."""
        columns = [total] if self.aggregation.sum_first else list(rewards.T)
        each = [baseline.update(prompts, column) for baseline, column in zip(self.baselines, columns, strict=True)]
        values = np.stack([advantages.values for advantages in each], axis=1) @ self.reward_weights
        if self.aggregation.over_batch:
            values = BatchBaseline().update(prompts, np.where(np.isfinite(total), values, np.nan)).values
        frac_constant = float(np.mean([advantages.frac_reward_zero_std for advantages in each]))
        return Advantages(values.clip(-self.clip, self.clip), frac_constant)

    def state_dict(self) -> list[dict[str, list[float]]]:
        """Return what each baseline remembers."""
        return [baseline.state_dict() for baseline in self.baselines]

    def load_state_dict(self, state: Sequence[Mapping[str, Sequence[float]]]) -> None:
        """Restore what [`state_dict`] returned."""
        for baseline, remembered in zip(self.baselines, state, strict=True):
            baseline.load_state_dict(remembered)


class RegressionWeighting(Weighting):
    """
    Weights of a regression on the images.

    Args:
        weigh (`Callable`):
            Maps the rewards of one group to their weights, both `(n,)`.
        per_prompt (`bool`):
            True if each prompt's images are a group; false if the whole rollout is one.
    """

    def __init__(self, weigh: Callable[[FloatArray], FloatArray], per_prompt: bool):
        self.weigh = weigh
        self.per_prompt = per_prompt

    def update(self, prompts: Sequence[str], rewards: FloatArray, total: FloatArray) -> Advantages:
        """See [`Weighting.update`]. An image without a reward has weight 0."""
        groups: list[Any] = list(images_of(prompts).values()) if self.per_prompt else [list(range(len(prompts)))]
        weights, num_constant = np.zeros(len(total)), 0
        for rows in groups:
            scored = np.array([row for row in rows if np.isfinite(total[row])], np.int64)
            num_constant += bool(np.ptp(total[scored]) == 0) if len(scored) else True
            weights[scored] = self.weigh(total[scored])
        return Advantages(weights, num_constant / len(groups))


def softmax_weights(rewards: FloatArray, beta: float) -> FloatArray:
    """
    Return RWR's weights exp(beta * r) / mean(exp(beta * r)) of a group `(n,)` (Black et al., 2023, section 4.2).

    They are n * softmax(beta * rewards): 1 on average, so that the learning rate means the same for any n.
    """
    if not len(rewards):
        return rewards
    exponentials = np.exp(beta * (rewards - rewards.max()))
    return exponentials / exponentials.mean()


def quantile_weights(rewards: FloatArray, quantile: float) -> FloatArray:
    """Return sparse RWR's weights: 1 at or above the quantile of the group `(n,)`, else 0 (section 4.2)."""
    return (rewards >= np.quantile(rewards, quantile)).astype(np.float64) if len(rewards) else rewards
