"""From the names and options of a command line to the objects of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ..options import LoraOptions, RunOptions

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import LoraConfig

    from ...config import DDPOConfig
    from ...scoring.functions import DetectorFunction, RewardFunction
    from ...trainer import DDPOTrainer

REWARD_KWARGS = '{"my_reward": {"scale": 2}}'


@dataclass(frozen=True)
class Parts:
    """
    What judges a training, and on which prompts.

    Parameters:
        prompts (`Dataset`):
            The rows to train on.
        evaluated (`Mapping[str, Dataset]`):
            The rows of evaluations, by name.
        rewards, held_out (`Sequence[RewardFunction]`), detectors (`Sequence[DetectorFunction]`):
            The functions.
    """

    prompts: Dataset
    evaluated: Mapping[str, Dataset]
    rewards: Sequence[RewardFunction]
    held_out: Sequence[RewardFunction]
    detectors: Sequence[DetectorFunction]


def build_parts(options: RunOptions, config: DDPOConfig, preset: Mapping[str, Any]) -> Parts:
    """Load prompts, rewards and detectors, everything that can fail cheaply first."""
    from ...plugins import functions_from_plugins, installed_plugins
    from ..evaluations.presets import fit_evaluation
    from ..prompts import load_prompts

    catalogue = installed_plugins()
    if not options.reward_funcs:
        raise ConfigError(
            f"No reward is named; give one with --reward_funcs NAME. Installed: {', '.join(catalogue.rewards)}."
        )
    train_dataset = load_prompts(options.prompts, catalogue)
    evaluated = {source: load_prompts(source, catalogue) for source in options.eval_prompts or []}
    held_out, evaluated = fit_evaluation(options, config, preset, train_dataset, evaluated)
    names = options.reward_funcs
    rewards, detectors = functions_from_plugins(
        dict.fromkeys([*names, *held_out]),
        options.detectors or [],
        reward_kwargs(options.reward_kwargs),
        config.device,
        catalogue,
    )
    return Parts(
        train_dataset,
        evaluated,
        [rewards[name] for name in names],
        [rewards[name] for name in held_out],
        list(detectors.values()),
    )


def build_trainer(options: RunOptions, lora: LoraOptions, config: DDPOConfig, preset: Mapping[str, Any]) -> DDPOTrainer:
    """Turn names into objects."""
    from ...loop.optimizer import check_optimizer
    from ...plugins import guidance_from_plugins
    from ...runs.checkpoint import check_output_dir
    from ...trainer import DDPOTrainer

    check_output_dir(config.folder, checkpoint_of(config.resume_from_checkpoint) is not None)
    check_optimizer(config)
    parts = build_parts(options, config, preset)
    return DDPOTrainer(
        options.model_name_or_path,
        parts.rewards,
        config,
        parts.prompts,
        dict(parts.evaluated) if len(parts.evaluated) > 1 else next(iter(parts.evaluated.values()), None),
        eval_reward_funcs=parts.held_out,
        detectors=parts.detectors,
        peft_config=None if config.full_finetuning else lora_config(lora),
        guidance_rules=guidance_from_plugins(),
    )


def lora_config(options: LoraOptions) -> LoraConfig:
    """Turn the options into PEFT's configuration. Unless layers are named, the denoiser's class decides which get an adapter."""
    from peft import LoraConfig

    return LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha or options.lora_r,
        target_modules=options.lora_target_modules,
        init_lora_weights="gaussian",
    )


def reward_kwargs(given: dict[str, Any] | str | None) -> dict[str, Any]:
    """
    Read `--reward_kwargs`: options by name of a reward or detector.

    Raises:
        [`ConfigError`]: it is no mapping of mappings.
    """
    from ddpo_plugins.masking import remember_secrets

    from ...options import parse_mapping

    kwargs = parse_mapping("reward_kwargs", given, REWARD_KWARGS) if isinstance(given, str) else given or {}
    remember_secrets(kwargs)
    for name, value in kwargs.items():
        if not isinstance(value, dict):
            raise ConfigError(
                f"reward_kwargs has a value of type {type(value).__name__} for {name!r}; it must be an object of options, "
                f"such as '{REWARD_KWARGS}'."
            )
    return kwargs


def checkpoint_of(value: str | None) -> str | bool | None:
    """`--resume_from_checkpoint` takes a folder, or true for the newest checkpoint."""
    return {"true": True, "false": None, "": None}.get(str(value).lower(), value) if value is not None else None
