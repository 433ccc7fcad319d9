"""Names that belong to the trainer. Its writers and checks take them from here, so that no plugin can take one."""

from __future__ import annotations

#: Arguments of every reward, whose names no column of a dataset may have.
REWARD_ARGUMENTS = ("images", "prompts", "trainer_state", "log_metric", "log_extra")

REWARDS = "rewards/"  #: prefix of each reward's column in records, and of its metrics
DETECTORS = "detectors/"  #: the same for detectors
STEPS = "steps/"  #: prefix of figures of one denoising step, which are recorded, not logged
PIXELS = "pixels/"  #: the same for figures of an evaluation's pixels, which are
FIXED_SAMPLES = "samples/reward"  #: metric of the fixed prompts and seeds: their mean reward
PIXEL_FIGURES = ("darkness", "edges", "entropy", "saturation", "brightness")

#: Columns of an image's record, with their types. Columns that begin with `rewards/`, `detectors/` and `pixels/` are floats.
RECORD_COLUMNS: dict[str, type[int] | type[float] | type[str]] = {
    "rollout": int,
    "updates": int,
    "rollouts": float,
    "row": int,
    "seed": int,
    "prompt": str,
    "reward": float,
    "advantage": float,
    "kl": float,
    "diversity": float,
}

#: Metrics that the trainer logs itself.
METRICS = frozenset(
    {
        "approx_kl",
        "clipfrac",
        "denoising_loss",
        "epoch",
        "frac_reward_missing",
        "frac_reward_zero_std",
        "grad_norm",
        "images_per_second",
        "kl",
        "learning_rate",
        "loss",
        "num_input_tokens_seen",
        "ratio",
        "reward",
        "reward_std",
        "step",
        "total_flos",
    }
)

#: Beginnings of names of metrics that the trainer logs itself.
METRIC_PREFIXES = (REWARDS, DETECTORS, STEPS, "samples/", "seconds/", "eval_", "test_", "train_")


def record_type(column: str) -> type[int] | type[float] | type[str] | None:
    """Return the type of a column of the trainer; None for one that plugins log."""
    return float if column.startswith((REWARDS, DETECTORS, PIXELS)) else RECORD_COLUMNS.get(column)


def is_metric(name: str) -> bool:
    """Return whether the trainer logs a metric of this name itself."""
    return name in METRICS or name.startswith(METRIC_PREFIXES)
