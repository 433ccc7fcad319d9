"""`ddpo train`: fine-tune a pipeline on rewards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpo_plugins.masking import masked_command, masked_text

from ..options import DDPOOptions, FileOptions, InheritedOptions, TrainerDefaults
from .options import LoraOptions, RunOptions
from .parse import load_preset, parse, preset_names
from .push import PUSH_FAILED
from .screens.groups import GROUPS
from .screens.pages import options_page
from .screens.setting import describe_training
from .screens.starting import stage, started

if TYPE_CHECKING:
    from ..config import DDPOConfig
    from ..runs.setup import Launch
    from ..trainer import DDPOTrainer

PROG = "ddpo train"
OPTIONS = (RunOptions, LoraOptions, DDPOOptions, TrainerDefaults, InheritedOptions, FileOptions)  #: of the page of help

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
    from ..config import DDPOConfig
    from ..runs.setup import Launch
    from .quiet import quiet_libraries
    from .screens.ending import resuming

    quiet_libraries()
    preset = load_preset(arguments)
    options, lora, config = parse((RunOptions, LoraOptions, DDPOConfig), arguments, PROG, preset)
    launch = Launch(
        masked_command(["ddpo", "train", *arguments]), preset_names(arguments), masked_text(options.prompts)
    )
    trainer = trained(Training(options, lora, config, preset, launch), resuming(arguments))
    return 0 if trainer.failed_push is None else PUSH_FAILED


@dataclass(frozen=True)
class Training:
    """
    A training as the command line describes it.

    Parameters:
        options ([`RunOptions`]), lora ([`LoraOptions`]), config ([`DDPOConfig`]):
            What was parsed.
        preset (`Mapping[str, Any]`):
            The options that presets set.
        launch ([`Launch`]):
            What `run.json` says of the command.
    """

    options: RunOptions
    lora: LoraOptions
    config: DDPOConfig
    preset: Mapping[str, Any]
    launch: Launch


def trained(
    training: Training,
    resume_command: str,
    around: Callable[[DDPOTrainer], AbstractContextManager[Any]] = nullcontext,
) -> DDPOTrainer:
    """
    Train, save, and print what came out.

    Args:
        training ([`Training`]):
            What to train.
        resume_command (`str`):
            The command that goes on after an interrupt.
        around (`Callable[[DDPOTrainer], AbstractContextManager]`, *optional*):
            Returns a context manager for the training itself, without what comes before and after it.
    """
    from ..loop.interrupts import StopRequestedError
    from ..runs.setup import launched
    from .training.build import build_trainer, checkpoint_of

    config = training.config
    if config.process_index == 0:
        started()
        print(masked_text(describe_training(training.options, config, training.launch.preset)), flush=True)
        stage(f"{PROG}: loading the model and the rewards")
    with launched(training.launch):
        trainer = build_trainer(training.options, training.lora, config, training.preset)
    started()
    try:
        with around(trainer):
            trainer.train(resume_from_checkpoint=checkpoint_of(config.resume_from_checkpoint))
    except (KeyboardInterrupt, StopRequestedError):
        if trainer.is_world_process_zero():
            _say_interrupted(trainer, resume_command)
        raise
    trainer.save_model()
    if trainer.is_world_process_zero():
        _summary(trainer)
    return trainer


def _say_interrupted(trainer: DDPOTrainer, resume_command: str) -> None:
    """Print what there is so far, and how to go on."""
    from ..loop.describing import describing
    from .screens.ending import RESUME

    with describing("The closing summary"):
        _summary(trainer)
    print(f"\nResume with the same command and {RESUME[0]} true:\n{resume_command}", file=sys.stderr)


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
