"""The names that options take."""

#: The values that options take, where these are names of ours; `None` where something else decides.
CHOICES = {
    "algorithm": ("ddpo_is", "ddpo_sf", "rwr", "sparse_rwr", "awm", "nft", "grpo_guard", "flow_dppo"),
    "advantages": ("per_prompt", "batch", "group", "group_over_batch", "win_rate"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum", "gdpo"),
    "sampler": ("ddim", "flow_sde", "dance_sde", "cps", "precise", "own"),
    "quantization": ("int8", "int4", "nf4"),
    "eval_strategy": ("no", "steps", "epoch"),
    "logging_strategy": ("no", "steps", "epoch"),
    "save_strategy": ("no", "steps", "epoch", "best"),
}
