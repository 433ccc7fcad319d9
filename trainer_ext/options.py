"""The options of a run. Imports nothing heavy, so that `ddpo train --help` is instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainerDefaults:
    """Fields of `transformers.TrainingArguments` whose defaults are the DDPO authors' here, or that mean something more."""

    learning_rate: float = field(default=3e-4, metadata={"help": "The initial learning rate for AdamW."})
    weight_decay: float = field(default=1e-4, metadata={"help": "Weight decay for AdamW."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "The learning rate schedule."})
    num_train_epochs: float = field(default=100.0, metadata={"help": "Rollouts to make and train on."})
    per_device_train_batch_size: int = field(
        default=8, metadata={"help": "Images trained on at once on each device; also denoising steps a forward pass."}
    )
    gradient_accumulation_steps: int = field(default=8, metadata={"help": "Batches of images in one update."})
    logging_strategy: str = field(
        default="epoch", metadata={"help": "When to log: 'epoch' (each rollout), 'steps' or 'no'."}
    )
    save_steps: float = field(
        default=0.1, metadata={"help": "Updates between two checkpoints; below 1: share of the run."}
    )
    save_total_limit: int | None = field(default=3, metadata={"help": "Checkpoints to keep."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Rewards get every column; leave it off."})
    disable_tqdm: bool | None = field(default=False, metadata={"help": "Show no progress bars."})
    report_to: None | str | list[str] = field(  # noqa: RUF036 - the order that HfArgumentParser can read
        default="none", metadata={"help": "Where to report: 'tensorboard', 'wandb', ..."}
    )
    output_dir: str | None = field(
        default="ddpo-output", metadata={"help": "Folder for everything that the run writes."}
    )


@dataclass
class DDPOOptions:
    """
    What DDPO adds to `transformers.TrainingArguments`. Defaults are the paper authors' for LoRA.

    Parameters:
        num_inference_steps (`int`, *optional*, defaults to 50):
            Denoising steps of an image, T.
        guidance_scale (`float`, *optional*, defaults to 5.0):
            Guidance scale, the same in sampling and training. `None` leaves it to the pipeline.
        eta (`float`, *optional*, defaults to 1.0):
            DDIM's weight of the noise, in (0, 1].
        sampler (`str`, *optional*):
            What draws the next latents: `"ddim"`, or for flow matching `"flow_sde"` (Flow-GRPO), `"dance_sde"` (DanceGRPO) or
            `"cps"` (coefficients-preserving sampling). By the pipeline's scheduler by default: `"ddim"` or `"flow_sde"`.
        noise_level (`float`, *optional*, defaults to 0.7):
            The flow samplers' weight of the noise, above 0; of `"cps"` at most 1.
        sde_window (`list[int]`, *optional*):
            First and last step with noise, counted from 0, for flow matching. The others are deterministic and never
            trained (MixGRPO). All steps have noise by default.
        guidance (`str`, *optional*):
            Name of the guidance rule, built in or of a plugin. Inferred from the pipeline by default.
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
        skip_last_steps (`int`, *optional*, defaults to 0):
            Denoising steps at the end that are sampled but not trained. With few steps, the noise of the last two is
            too small to change the image, yet theirs is by far the largest gradient.
        algorithm (`str`, *optional*, defaults to `"ddpo_is"`):
            What is learned from a rollout: `"ddpo_is"`, `"ddpo_sf"`, `"rwr"` or `"sparse_rwr"`.
        clip_range (`float`, *optional*, defaults to 1e-4):
            Half-width of the ratio's clip interval, of DDPO-IS.
        beta (`float`, *optional*, defaults to 0.0):
            Weight of the KL divergence to the model before training, in nats per latent element, of DDPO.
        rwr_beta (`float`, *optional*, defaults to 0.2):
            Inverse temperature of RWR's weights, softmax(rwr_beta * reward).
        rwr_quantile (`float`, *optional*, defaults to 0.9):
            Sparse RWR keeps the images whose reward is at or above this quantile.
        advantages (`str`, *optional*, defaults to `"per_prompt"`):
            What a reward is compared with: `"per_prompt"`, the last rewards of its prompt; `"batch"`, the rollout;
            `"group"`, the images of its prompt in the rollout (GRPO). For RWR, what the softmax or quantile is over: the
            images of the prompt in the rollout, or for `"batch"` the whole rollout.
        scale_rewards (`bool`, *optional*, defaults to `True`):
            Divide advantages by the standard deviation of what rewards are compared with.
        multi_objective_aggregation (`str`, *optional*, defaults to `"sum_then_normalize"`):
            With several rewards: the advantage of their weighted sum, or (`"normalize_then_sum"`) the weighted sum of their
            advantages.
        advantage_clip (`float`, *optional*, defaults to 5.0):
            Advantages are clipped to [-advantage_clip, advantage_clip].
        stat_buffer_size (`int`, *optional*, defaults to 32):
            Rewards remembered for each prompt.
        stat_min_count (`int`, *optional*, defaults to 16):
            Rewards of its own that a prompt needs before its own mean and std are used.
        reward_weights (`list[float]`, *optional*):
            Weight of each reward. All 1 by default.
        detector_weights (`list[float]`, *optional*):
            What each detector adds to the reward, usually negative. By default detectors are only watched.
        stop_when (`list[str]`, *optional*):
            Rules that end the run, such as `"typographic_attack>0.3"`: NAME>NUMBER or NAME<NUMBER, for a detector (its mean
            over the rollout), `reward`, `rewards/{name}/mean`, `detectors/{name}/max`, or what a reward logs. Nothing is
            learned from the rollout that meets one.
        overlap_rewards (`bool`, *optional*, defaults to `True`):
            Call rewards in a thread of their own, while the next batch is sampled. `False` for one that needs the main thread,
            uses the pipeline that is trained, or talks to the other processes.
        reward_timeout (`float`, *optional*):
            Seconds that a reward or detector may take for a batch; after that the run ends with an error. No limit by default.
        full_finetuning (`bool`, *optional*, defaults to `False`):
            Train all weights of the denoiser instead of a LoRA adapter.
        ema_decay (`float`, *optional*):
            Decay of an exponential moving average of the trained weights, in (0, 1). It is what is evaluated, drawn and saved.
        num_sample_images (`int`, *optional*, defaults to 16):
            Images of the grids in `samples/`; 0 for none.
        sample_every (`int`, *optional*, defaults to 10):
            Rollouts between two grids; 0 for only the first and the last.
    """

    num_inference_steps: int = field(default=50, metadata={"help": "Denoising steps of an image."})
    guidance_scale: float | None = field(
        default=5.0,
        metadata={
            "help": "Guidance scale, the same in sampling and training; null in a config file leaves it to the pipeline."
        },
    )
    eta: float = field(default=1.0, metadata={"help": "DDIM's weight of the noise, in (0, 1]."})
    sampler: str | None = field(
        default=None,
        metadata={
            "help": "What draws the next latents: 'ddim', or for flow matching 'flow_sde', 'dance_sde' or 'cps'. By the "
            "pipeline's scheduler by default: 'ddim' or 'flow_sde'."
        },
    )
    noise_level: float = field(
        default=0.7, metadata={"help": "The flow samplers' weight of the noise, above 0; of 'cps' at most 1."}
    )
    sde_window: list[int] | None = field(
        default=None,
        metadata={
            "help": "First and last step with noise, counted from 0, for flow matching; the others are not trained."
        },
    )
    guidance: str | None = field(
        default=None,
        metadata={"help": "Name of the guidance rule (`ddpo rewards`). Inferred from the pipeline by default."},
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
        default=1.0,
        metadata={"help": "Share of the denoising steps that is trained, drawn anew for each image and pass."},
    )
    skip_last_steps: int = field(
        default=0,
        metadata={
            "help": "Steps at the end that are not trained: with few steps theirs is mostly noise, and the loudest."
        },
    )
    algorithm: str = field(
        default="ddpo_is",
        metadata={"help": "What is learned from a rollout: 'ddpo_is', 'ddpo_sf', 'rwr' or 'sparse_rwr'."},
    )
    clip_range: float = field(default=1e-4, metadata={"help": "Half-width of the ratio's clip interval, of DDPO-IS."})
    beta: float = field(
        default=0.0, metadata={"help": "Weight of the KL divergence to the model before training, of DDPO."}
    )
    rwr_beta: float = field(default=0.2, metadata={"help": "RWR's weights are softmax(rwr_beta * reward)."})
    rwr_quantile: float = field(
        default=0.9, metadata={"help": "Sparse RWR keeps the images at or above this quantile of the reward."}
    )
    advantages: str = field(
        default="per_prompt",
        metadata={
            "help": "What a reward is compared with: 'per_prompt' (the last rewards of its prompt), 'batch' (the rollout) or "
            "'group' (the images of its prompt in the rollout, as GRPO does)."
        },
    )
    scale_rewards: bool = field(
        default=True,
        metadata={"help": "Divide advantages by the standard deviation of what rewards are compared with."},
    )
    multi_objective_aggregation: str = field(
        default="sum_then_normalize",
        metadata={
            "help": "Several rewards: 'sum_then_normalize' or 'normalize_then_sum' (the sum of their advantages)."
        },
    )
    advantage_clip: float = field(default=5.0, metadata={"help": "Advantages are clipped to plus and minus this."})
    stat_buffer_size: int = field(default=32, metadata={"help": "Rewards remembered for each prompt."})
    stat_min_count: int = field(
        default=16, metadata={"help": "Rewards of its own that a prompt needs before its own mean and std are used."}
    )
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each reward. All 1 by default."}
    )
    detector_weights: list[float] | None = field(
        default=None,
        metadata={"help": "What each detector adds to the reward, usually negative. Only watched by default."},
    )
    stop_when: list[str] | None = field(
        default=None,
        metadata={
            "help": "Rules that end the run, such as 'typographic_attack>0.3', for a detector or a metric of the rollout."
        },
    )
    overlap_rewards: bool = field(
        default=True, metadata={"help": "Call rewards in a thread of their own, while the next batch is sampled."}
    )
    reward_timeout: float | None = field(
        default=None, metadata={"help": "Seconds that a reward may take for a batch; no limit by default."}
    )
    full_finetuning: bool = field(
        default=False, metadata={"help": "Train all weights of the denoiser instead of a LoRA adapter."}
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Decay of a moving average of the trained weights, which is what is evaluated, drawn and saved."
        },
    )
    num_sample_images: int = field(default=16, metadata={"help": "Images of the grids in samples/; 0 for none."})
    sample_every: int = field(
        default=10, metadata={"help": "Rollouts between two grids; 0 for only the first and the last."}
    )
