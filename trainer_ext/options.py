"""The options of a run that are DDPO's own. Imports nothing heavy, so that `ddpo train --help` is instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DDPOOptions:
    """
    What DDPO adds to `transformers.TrainingArguments`. Defaults are the paper authors' for LoRA.

    Parameters:
        num_inference_steps (`int`, *optional*, defaults to 50):
            Denoising steps of an image, T.
        guidance_scale (`float`, *optional*, defaults to 5.0):
            Guidance scale, the same in sampling and training.
        eta (`float`, *optional*, defaults to 1.0):
            DDIM's weight of the noise, in (0, 1].
        guidance (`str`, *optional*):
            Name of the guidance rule. Inferred from the pipeline by default.
        pipeline_kwargs (`dict` or JSON `str`, *optional*):
            More arguments for every call of the pipeline.
        num_images_per_rollout (`int`, *optional*, defaults to 256):
            Images of a rollout, over all processes.
        num_images_per_prompt (`int`, *optional*, defaults to 1):
            Images of a prompt in a rollout.
        rollout_batch_size (`int`, *optional*, defaults to 8):
            Images sampled at once on each device.
        num_inner_epochs (`int`, *optional*, defaults to 1):
            Passes over a rollout.
        timestep_fraction (`float`, *optional*, defaults to 1.0):
            Share of the denoising steps that is trained, drawn anew for each image and pass.
        clip_range (`float`, *optional*, defaults to 1e-4):
            Half-width of the ratio's clip interval.
        advantage_clip (`float`, *optional*, defaults to 5.0):
            Advantages are clipped to [-advantage_clip, advantage_clip].
        stat_buffer_size (`int`, *optional*, defaults to 32):
            Rewards remembered for each prompt.
        stat_min_count (`int`, *optional*, defaults to 16):
            Rewards of its own that a prompt needs before its own mean and std are used.
        reward_weights (`list[float]`, *optional*):
            Weight of each reward. All 1 by default.
        full_finetuning (`bool`, *optional*, defaults to `False`):
            Train all weights of the denoiser instead of a LoRA adapter.
        num_sample_images (`int`, *optional*, defaults to 16):
            Images of the grids in `samples/`; 0 for none.
        sample_every (`int`, *optional*, defaults to 10):
            Rollouts between two grids; 0 for only the first and the last.
    """

    num_inference_steps: int = field(default=50, metadata={"help": "Denoising steps of an image."})
    guidance_scale: float = field(
        default=5.0, metadata={"help": "Guidance scale, the same in sampling and training."}
    )
    eta: float = field(default=1.0, metadata={"help": "DDIM's weight of the noise, in (0, 1]."})
    guidance: str | None = field(
        default=None, metadata={"help": "Name of the guidance rule. Inferred from the pipeline by default."}
    )
    pipeline_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": 'More arguments for every call of the pipeline, as JSON: \'{"negative_prompt": "blurry"}\'.'},
    )
    num_images_per_rollout: int = field(default=256, metadata={"help": "Images of a rollout, over all processes."})
    num_images_per_prompt: int = field(default=1, metadata={"help": "Images of a prompt in a rollout."})
    rollout_batch_size: int = field(default=8, metadata={"help": "Images sampled at once on each device."})
    num_inner_epochs: int = field(default=1, metadata={"help": "Passes over a rollout."})
    timestep_fraction: float = field(
        default=1.0, metadata={"help": "Share of the denoising steps that is trained, drawn anew for each image and pass."}
    )
    clip_range: float = field(default=1e-4, metadata={"help": "Half-width of the ratio's clip interval."})
    advantage_clip: float = field(default=5.0, metadata={"help": "Advantages are clipped to plus and minus this."})
    stat_buffer_size: int = field(default=32, metadata={"help": "Rewards remembered for each prompt."})
    stat_min_count: int = field(
        default=16, metadata={"help": "Rewards of its own that a prompt needs before its own mean and std are used."}
    )
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each reward. All 1 by default."}
    )
    full_finetuning: bool = field(
        default=False, metadata={"help": "Train all weights of the denoiser instead of a LoRA adapter."}
    )
    num_sample_images: int = field(default=16, metadata={"help": "Images of the grids in samples/; 0 for none."})
    sample_every: int = field(
        default=10, metadata={"help": "Rollouts between two grids; 0 for only the first and the last."}
    )
