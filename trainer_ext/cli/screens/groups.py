"""The options of `ddpo train` in groups, in the order in which one needs them."""

GROUPS = {
    "what is trained, for which reward": (
        "model_name_or_path", "reward_funcs", "reward_weights", "reward_kwargs", "prompts", "preset", "config", "output_dir",
        "resume_from_checkpoint", "seed",
    ),
    "how long": ("num_train_epochs", "max_steps"),
    "rollouts": (
        "num_images_per_rollout", "num_images_per_prompt", "rollout_batch_size", "num_inference_steps", "guidance_scale",
        "eta", "sampler", "noise_level", "sde_window", "sde_window_size", "guidance", "pipeline_kwargs", "overlap_rewards",
        "reward_timeout",
    ),
    "learning": (
        "algorithm", "learning_rate", "lr_scheduler_type", "weight_decay", "max_grad_norm", "per_device_train_batch_size",
        "gradient_accumulation_steps", "num_inner_epochs", "timestep_fraction", "skip_last_steps", "clip_range", "beta",
        "kl_gate", "reference_reset", "reference_reset_kl", "diversity_shaping",
        "advantages", "scale_rewards", "multi_objective_aggregation", "advantage_clip", "stat_buffer_size", "stat_min_count",
        "rwr_beta", "rwr_resample", "rwr_quantile", "nft_strength", "kl_threshold",
    ),
    "weights and precision": (
        "lora_r", "lora_alpha", "lora_target_modules", "full_finetuning", "quantization", "ema_decay", "bf16", "fp16",
        "use_cpu",
    ),
    "is the reward being gamed": (
        "detectors", "detector_weights", "detector_every", "stop_when", "eval_strategy", "eval_steps", "eval_prompts",
        "eval_reward_funcs", "eval_images_per_prompt",
    ),
    "what is shown and kept": (
        "num_sample_images", "sample_every", "sample_defaults", "keep_images", "keep_images_gb", "logging_strategy", "report_to",
        "disable_tqdm", "save_strategy", "save_steps", "save_total_limit", "push_to_hub", "hub_model_id",
    ),
}  # fmt: skip
