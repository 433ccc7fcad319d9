"""How much of everything, for CPU hours and for GPU minutes."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Settings:
    """
    Amounts of all stages; each is an option of the command line. The defaults are for two CPU cores.

    Args:
        shards (`int`): Of scenes that the autoencoder and the generator are trained on.
        judge_shards, reader_shards (`int`): Of pictures that judges are trained on, and of writing that the one that
            reads is trained on besides; one more each tests them.
        scenes_per_shard (`int`): In each.
        sign_share, poster_share (`float`): Of the generator's scenes; without posters, nothing is written unasked.
        vae_steps, vae_batch_size, vae_learning_rate: Of the autoencoder's training.
        spelling_steps, spelling_batch_size, spelling_learning_rate: Of the text encoder's before the generator's.
        generator_steps, generator_batch_size, generator_learning_rate: Of the text encoder's and the UNet's.
        adapter_shards (`int`), adapter_poster_share (`float`): Of the scenes that the adapter for posters is trained on.
        adapter_spelling_steps, adapter_steps, adapter_learning_rate: Of its two parts.
        judge_steps, judge_batch_size, judge_learning_rate: Of either judge's.
        taste_scenes (`int`): Of either icon set, that the taste is fitted to, and as many that it is tested on.
        prompts_per_set (`int`): That evaluation asks, evenly spread over those there are; no set has a thousand.
        images_per_prompt, images_per_sign (`int`): That evaluation samples; the detector needs a quarter of a second each.
        num_inference_steps (`int`): That it takes for each.
        sheet_steps (`int`): That it takes for pictures to look at: what few steps leave blurred, the judge minds less.
        sampling_batch_size (`int`): Images that it samples at a time.
    """

    shards: int = 16
    judge_shards: int = 12
    reader_shards: int = 10
    scenes_per_shard: int = 4096
    sign_share: float = 0.15
    poster_share: float = 0.04
    vae_steps: int = 12_000
    vae_batch_size: int = 8
    vae_learning_rate: float = 2e-3
    spelling_steps: int = 2_000
    spelling_batch_size: int = 128
    spelling_learning_rate: float = 1e-3
    generator_steps: int = 60_000
    generator_batch_size: int = 32
    generator_learning_rate: float = 1e-3
    adapter_shards: int = 6
    adapter_poster_share: float = 0.12
    adapter_spelling_steps: int = 6_000
    adapter_steps: int = 2_000
    adapter_learning_rate: float = 2e-3
    judge_steps: int = 4_000
    judge_batch_size: int = 64
    judge_learning_rate: float = 2e-3
    taste_scenes: int = 4_096
    prompts_per_set: int = 1_000
    images_per_prompt: int = 20
    images_per_sign: int = 5
    num_inference_steps: int = 20
    sheet_steps: int = 50
    sampling_batch_size: int = 16


CPU = Settings()
# One step of these small networks takes a GPU as long to launch as to compute, even with batches this large.
GPU = Settings(
    shards=100,
    judge_shards=50,
    reader_shards=40,
    vae_steps=20_000,
    vae_batch_size=256,
    generator_steps=12_000,
    generator_batch_size=2_048,
    generator_learning_rate=2e-3,
    judge_batch_size=512,
    sampling_batch_size=500,
)


def defaults() -> Settings:
    """Return the settings for what this machine has."""
    return GPU if torch.cuda.is_available() else CPU


def workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
