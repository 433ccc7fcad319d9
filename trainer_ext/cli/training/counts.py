"""How often a run does what takes time, counted from its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...doctor.whole_run import Batches, Counts
from ..evaluations.cost import num_evaluated_images, num_evaluations
from ..options import RunOptions
from ..screens.setting import num_updates

if TYPE_CHECKING:
    from ...config import DDPOConfig


def counts_of(options: RunOptions, config: DDPOConfig, rollouts: int | None = None) -> Counts:
    """Return the counts of a run of some rollouts, by default its own, for one of its processes."""
    from ...monitoring.divergence import MAX_IMAGES

    updates = num_updates(config) if rollouts is None else rollouts * config.updates_per_rollout
    rollouts = -(-updates // config.updates_per_rollout)
    evaluated = -(-num_evaluated_images(options, config) // config.world_size)
    size, overlaps = config.rollout_batch_size, config.overlap_rewards
    has_reference = not config.full_finetuning or bool(config.beta)
    drawn = config.num_sample_images
    return Counts(
        rollout=Batches(config.images_per_process, size, overlaps),
        evaluation=Batches(evaluated, size, overlaps),
        rollouts=rollouts,
        updates=updates,
        evaluations=num_evaluations(config, updates) if evaluated else 0,
        checkpoints=num_checkpoints(config, updates),
        divergences=min(evaluated, max(1, MAX_IMAGES // config.world_size)) if has_reference else 0,
        drawn=drawn,
        drawings=_num_drawings(config, rollouts),
        drawn_by_default=2 * drawn * config.sample_defaults,  # without the adapter, and with it
    )


def num_checkpoints(config: DDPOConfig, updates: int) -> int:
    """Return how many checkpoints a run of some updates writes; the last update always has one."""
    if config.save_strategy == "no":
        return 0
    every = config.updates_per_rollout if config.save_strategy == "epoch" else config.save_steps
    return -(-updates // max(1, round(updates * every) if every < 1 else round(every)))


def _num_drawings(config: DDPOConfig, rollouts: int) -> int:
    """Return how often the fixed samples are drawn: before training, every few rollouts, and after it."""
    return 2 + ((rollouts - 1) // config.sample_every if config.sample_every else 0)
