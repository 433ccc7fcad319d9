"""What the evaluations of a run cost, for `ddpo doctor`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..options import RunOptions
from ..screens.setting import num_updates

if TYPE_CHECKING:
    from ...config import DDPOConfig


def describe_evaluations(options: RunOptions, config: DDPOConfig) -> str:
    """Return a sentence on the number of images that evaluations sample, and on what judges them; empty if none runs."""
    images, times = num_evaluated_images(options, config), num_evaluations(config)
    if not images:
        return ""
    share = images * times / (config.num_images_per_rollout * num_updates(config) / config.updates_per_rollout)
    judges = [*(options.eval_reward_funcs or ()), *(options.detectors or ())]
    return (
        f"{images} images, {times} times: {share:.1%} as many as the rollouts'; also judged by {_listed(judges)}. "
        "`--eval_strategy no` turns it off"
    )


def num_evaluated_images(options: RunOptions, config: DDPOConfig) -> int:
    """Return the number of images of one evaluation; 0 if none runs."""
    from ...plugins import installed_plugins
    from ..prompts import load_prompts

    if config.eval_strategy == "no" or not options.eval_prompts:
        return 0
    catalogue = installed_plugins()
    return sum(len(load_prompts(source, catalogue)) for source in options.eval_prompts) * config.eval_images_per_prompt


def num_evaluations(config: DDPOConfig, updates: int | None = None) -> int:
    """Return how often a run of some updates, by default its own, is evaluated: before, at each interval and after the last."""
    updates = num_updates(config) if updates is None else updates
    interval = config.updates_per_rollout if config.eval_strategy == "epoch" else config.eval_steps or 1
    return 1 + math.ceil(updates / (math.ceil(updates * interval) if interval < 1 else interval))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing else"
