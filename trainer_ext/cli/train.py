"""`ddpo train`: fine-tune a pipeline on rewards."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..options import DDPOOptions, FileOptions, InheritedOptions, TrainerDefaults
from .options import LoraOptions, RunOptions
from .parse import load_preset, parse, preset_names
from .push import PUSH_FAILED
from .screens.groups import GROUPS
from .screens.pages import options_page
from .screens.starting import stage, started

if TYPE_CHECKING:
    from peft import LoraConfig

    from ..config import DDPOConfig
    from ..trainer import DDPOTrainer

PROG = "ddpo train"
OPTIONS = (RunOptions, LoraOptions, DDPOOptions, TrainerDefaults, InheritedOptions, FileOptions)  #: of the page of help
REWARD_KWARGS = '{"my_reward": {"scale": 2}}'

NOTE = """
The other arguments of transformers.TrainingArguments work too, unless they have no meaning here: `ddpo train --help_all`
lists them. Flags win over --config, which wins over presets. `ddpo rewards` and `ddpo presets` list names.
"""


def run(arguments: list[str]) -> int:
    """Run the command."""
    if "--help_all" in arguments:
        from ..config import DDPOConfig

        parse((RunOptions, LoraOptions, DDPOConfig), ["--help"], PROG, {})
    if {"-h", "--help"} & set(arguments):
        return _help(arguments)
    return _train(arguments)


def _help(arguments: list[str]) -> int:
    preset, names = load_preset(arguments), preset_names(arguments)
    origin = f"preset {' and '.join(names)}" if names else ""
    print(options_page(PROG, f"{PROG} [options]", OPTIONS, GROUPS, preset, origin) + NOTE)
    return 0


def _train(arguments: list[str]) -> int:
    from ddpo_plugins.masking import masked_command, masked_text

    from ..config import DDPOConfig
    from ..loop.describing import describing
    from ..loop.interrupts import StopRequestedError
    from ..runs.setup import Launch, launched
    from .quiet import quiet_libraries
    from .screens.ending import RESUME, resuming
    from .screens.setting import describe_training

    quiet_libraries()
    preset = load_preset(arguments)
    options, lora, config = parse((RunOptions, LoraOptions, DDPOConfig), arguments, PROG, preset)
    command, presets = masked_command(["ddpo", "train", *arguments]), preset_names(arguments)
    if config.process_index == 0:
        started()
        print(masked_text(describe_training(options, config, presets)), flush=True)
        stage("ddpo train: loading the model and the rewards")
    with launched(Launch(command, presets, masked_text(options.prompts))):
        trainer = _build(options, lora, config, preset)
    started()
    try:
        trainer.train(resume_from_checkpoint=_resume(config.resume_from_checkpoint))
    except (KeyboardInterrupt, StopRequestedError):
        if trainer.is_world_process_zero():
            with describing("The closing summary"):
                _summary(trainer)
            print(f"\nResume with the same command and {RESUME[0]} true:\n{resuming(arguments)}", file=sys.stderr)
        raise
    trainer.save_model()
    if trainer.is_world_process_zero():
        _summary(trainer)
    return 0 if trainer.failed_push is None else PUSH_FAILED


def _build(options: RunOptions, lora: LoraOptions, config: DDPOConfig, preset: Mapping[str, Any]) -> DDPOTrainer:
    """Turn names into objects, everything that can fail cheaply first."""
    from ..loop.optimizer import check_optimizer
    from ..plugins import functions_from_plugins, guidance_from_plugins, installed_plugins
    from ..runs.checkpoint import check_output_dir
    from ..trainer import DDPOTrainer
    from .evaluations.presets import fit_evaluation
    from .prompts import load_prompts

    check_output_dir(config.folder, _resume(config.resume_from_checkpoint) is not None)
    check_optimizer(config)
    catalogue = installed_plugins()
    if not options.reward_funcs:
        raise ConfigError(
            f"No reward is named; give one with --reward_funcs NAME. Installed: {', '.join(catalogue.rewards)}."
        )
    train_dataset = load_prompts(options.prompts, catalogue)
    evaluated = {source: load_prompts(source, catalogue) for source in options.eval_prompts or []}
    eval_names, evaluated = fit_evaluation(options, config, preset, train_dataset, evaluated)
    names = options.reward_funcs
    rewards, detectors = functions_from_plugins(
        dict.fromkeys([*names, *eval_names]),
        options.detectors or [],
        reward_kwargs(options.reward_kwargs),
        config.device,
        catalogue,
    )
    return DDPOTrainer(
        options.model_name_or_path,
        [rewards[name] for name in names],
        config,
        train_dataset,
        evaluated if len(evaluated) > 1 else next(iter(evaluated.values()), None),
        eval_reward_funcs=[rewards[name] for name in eval_names],
        detectors=list(detectors.values()),
        peft_config=None if config.full_finetuning else lora_config(lora),
        guidance_rules=guidance_from_plugins(catalogue),
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

    from ..options import parse_mapping

    kwargs = parse_mapping("reward_kwargs", given, REWARD_KWARGS) if isinstance(given, str) else given or {}
    remember_secrets(kwargs)
    for name, value in kwargs.items():
        if not isinstance(value, dict):
            raise ConfigError(
                f"reward_kwargs has a value of type {type(value).__name__} for {name!r}; it must be an object of options, "
                f"such as '{REWARD_KWARGS}'."
            )
    return kwargs


def _resume(value: str | None) -> str | bool | None:
    """`--resume_from_checkpoint` takes a folder, or true for the newest checkpoint."""
    return {"true": True, "false": None, "": None}.get(str(value).lower(), value) if value is not None else None


def _summary(trainer: DDPOTrainer) -> None:
    """Print the result of the run and where its files are; what to do next goes to standard error."""
    from ..runs.folder import RunFolder
    from .screens.ending import next_lines, place_lines, result_lines

    folder, summary = RunFolder(trainer.args.folder), trainer.summary
    print()
    for line in result_lines(summary, bool(trainer.args.num_sample_images)):
        print(line)
    for line in place_lines(folder, summary.chosen_checkpoint):
        print(line)
    sys.stdout.flush()
    for line in ("\nNext:", *next_lines(folder)):
        print(line, file=sys.stderr)
