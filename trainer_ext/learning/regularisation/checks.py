"""Whether the options of regularisation can work together."""

from __future__ import annotations

from ...errors import ConfigError
from ...options import DDPOOptions

OF_THE_DISTANCE = ("kl_gate", "reference_reset", "reference_reset_kl")


def check_regularisation(options: DDPOOptions) -> None:
    """
    Check the options that say what `beta` counts for, and `diversity_shaping`.

    Raises:
        [`ConfigError`]: there is no distance in the loss, `kl_gate` has no rewards to compare, or a detector would not see all
            images of a prompt, or only one.
    """
    given = ", ".join(f"{name}={vars(options)[name]}" for name in OF_THE_DISTANCE if vars(options)[name])
    if given and not options.beta:
        raise ConfigError(
            f"beta is 0 and {given}, which say what beta's distance from the reference counts for. Set beta above 0, or leave "
            "them out."
        )
    if options.kl_gate:
        _check_compared(options)
    shaping = f"diversity_shaping is {options.diversity_shaping!r}, which compares the images of a prompt"
    if options.diversity_shaping is None:
        return
    if options.num_images_per_prompt < 2:
        raise ConfigError(
            f"{shaping}, and num_images_per_prompt is {options.num_images_per_prompt}; it must be at least 2."
        )
    if options.rollout_batch_size < options.num_images_per_prompt:
        raise ConfigError(
            f"{shaping}, and rollout_batch_size={options.rollout_batch_size} is less than num_images_per_prompt="
            f"{options.num_images_per_prompt}; it must be at least as large, because a detector sees the images of one batch."
        )
    if options.detector_every > 1:
        raise ConfigError(f"{shaping}, and detector_every is {options.detector_every}; it must be 1.")


def _check_compared(options: DDPOOptions) -> None:
    """Raise [`ConfigError`] unless there are rewards that are not trained on, and something that is."""
    weights = options.reward_weights or []
    trained = any([*weights, *(options.detector_weights or ())])
    if all(weights) or not trained:
        raise ConfigError(
            f"kl_gate compares what is trained on with rewards that are not, and reward_weights is {options.reward_weights}; it "
            "must have a 0 for each reward to compare with, and another weight for the others: "
            "reward_funcs=[trained, other], reward_weights=[1, 0]."
        )
