"""One line on what a training is about to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..options import RunOptions

if TYPE_CHECKING:
    from ...config import DDPOConfig


def num_updates(config: DDPOConfig) -> int:
    """Return the number of optimizer updates of a whole run."""
    return config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * config.updates_per_rollout)


def describe_training(options: RunOptions, config: DDPOConfig, presets: Sequence[str]) -> str:
    """Return a sentence with the model, rewards, prompts, updates, device and folder of a run."""
    from ...runs.setup.facts import describe_device

    rewards = options.reward_funcs or []
    updates = num_updates(config)
    rollouts = math.ceil(updates / config.updates_per_rollout)
    processes = f" ({config.world_size} processes)" if config.world_size > 1 else ""
    preset = f", preset {' and '.join(presets)}" if presets else ""
    return (
        f"{options.model_name_or_path} on {describe_device(config.device)}{processes}: reward {' + '.join(rewards)}, prompts "
        f"{options.prompts}{preset}; {rollouts} rollouts of {config.num_images_per_rollout} images, {updates} updates; into "
        f"{config.folder}"
    )
