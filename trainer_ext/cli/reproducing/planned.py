"""From the options of `ddpo reproduce` to a training in the variant that fits this card, measured before it starts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigError
from ...reproduction.files import KitFiles, Plan
from ...reproduction.planning import GB, Card, affordable_rollouts, memory_for, presets_for
from ..listing.details import HUB_ID, downloads_of
from ..options import LoraOptions, RunOptions
from ..parse import load_preset, parse
from ..screens.setting import num_updates
from ..screens.starting import started
from .checks import agree, check_disk, missing_downloads
from .options import ReproduceOptions, told

if TYPE_CHECKING:
    from ...config import DDPOConfig
    from ..train import Training
    from .measuring import Measured

PROG = "ddpo reproduce"
ASKED_HOURS = 0.25  #: beyond which the user is asked


def training_of(presets: Sequence[str], over: Sequence[str], given: Sequence[str], command: str) -> Training:
    """Parse presets, options that stand over them, and what the user gave, which wins."""
    from ddpo_plugins.masking import masked_text

    from ...config import DDPOConfig
    from ...runs.setup import Launch
    from ..train import Training

    arguments = ["--preset", *presets, *over, *given]
    preset = load_preset(arguments)
    options, lora, config = parse((RunOptions, LoraOptions, DDPOConfig), arguments, PROG, preset)
    return Training(options, lora, config, preset, Launch(command, presets, masked_text(options.prompts)))


def options_over_presets(options: ReproduceOptions, memory: int | None = None, has_bf16: bool = True) -> list[str]:
    """Return the options that stand over the presets of a task."""
    from transformers import TrainingArguments

    known = TrainingArguments.__dataclass_fields__
    recomputing = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in known)
    half = [] if has_bf16 else ["--bf16", "false", "--fp16", "true"]
    return [
        *([] if options.model is None else ["--model_name_or_path", options.model]),
        *([] if memory is None else [*half, f"--{recomputing}", "true"]),
        *("--output_dir", f"reproduce-{options.task}"),
        *("--logging_first_step", "true"),  # the ratio of the first update alone
        *("--sample_defaults", "true"),
    ]


def training_to_do(options: ReproduceOptions, given: list[str], command: str) -> Training:
    """
    Return the training, with a plan in its folder: the one that is there if the run is resumed, or a new one.

    Raises:
        [`ConfigError`]: the card, the disk, the budget or the user says no; or the folder has the plan of another reproduction.
        [`PipelineError`]: the pipeline cannot be trained.
    """
    from ...runs.checkpoint import check_output_dir
    from ..training.build import checkpoint_of
    from .checks import this_card

    presets = presets_for(str(options.task), options.model, "full", None)
    config = training_of(presets, options_over_presets(options), given, command).config
    if config.world_size > 1:
        raise ConfigError("ddpo reproduce measures one process; start it without a launcher.")
    kit = KitFiles(config.folder)
    if checkpoint_of(config.resume_from_checkpoint) is not None and kit.has_plan:
        return _resumed(kit.plan(), options, given, command)
    check_output_dir(config.folder, resuming=False)
    return _planned(options, given, command, this_card(config.use_cpu))


def _resumed(plan: Plan, options: ReproduceOptions, given: list[str], command: str) -> Training:
    if plan.task != options.task or options.model not in (None, plan.model):
        raise ConfigError(
            f"The folder has a reproduction of {plan.task} on {plan.model}; resume it with the same command, or give another "
            "output_dir."
        )
    started()
    return training_of(plan.presets, plan.options, [*given, *_epochs(plan.rollouts)], command)


def _planned(options: ReproduceOptions, given: list[str], command: str, card: Card) -> Training:
    """Choose the variant for a card, measure it, say what it takes, ask before long work, and write the plan."""
    from .measuring import measure

    memory = options.memory if options.memory is not None else memory_for(card, options.model)
    presets = presets_for(str(options.task), options.model, options.budget, memory)
    over = options_over_presets(options, memory, card.has_bf16)
    whole = training_of(presets, over, given, command)
    started()
    print(f"{options.task} on {whole.options.model_name_or_path}: presets {' and '.join(presets)}", flush=True)
    _check_downloads(whole.options, options.yes)
    measured = measure(whole)
    seconds = partial(measured.seconds, whole.options, whole.config)
    rollouts = affordable_rollouts(options.budget, measured.estimate.num_rollouts, seconds)
    training = training_of(presets, over, [*given, *_epochs(rollouts)], command)
    plan = _plan(options, memory, (over, given), card, training, measured)
    parts = measured.seconds_by_part(training.options, training.config, plan.rollouts)
    _check_room(plan, training.config, measured.disk_bytes(training.config), card, parts)
    if plan.hours > ASKED_HOURS:
        agree(f"That is about {plan.hours:.3g} hours of work.", options.yes)
    KitFiles(training.config.folder).write_plan(plan)
    return training


def _epochs(rollouts: int) -> list[str]:
    return ["--num_train_epochs", str(rollouts)]


def _plan(
    options: ReproduceOptions,
    memory: int | None,
    arguments: tuple[list[str], list[str]],
    card: Card,
    training: Training,
    measured: Measured,
) -> Plan:
    from ddpo_plugins.masking import masked_command

    over, given = arguments
    config, updates = training.config, num_updates(training.config)
    rollouts = -(-updates // config.updates_per_rollout)
    return Plan(
        task=str(options.task),
        model=training.options.model_name_or_path,
        budget=options.budget,
        memory=memory,
        presets=training.launch.preset,
        options=over,
        changed=shlex.split(masked_command(told(given))),
        rollouts=rollouts,
        updates=updates,
        hours=measured.seconds(training.options, config, rollouts) / 3600,
        training_bytes=measured.training_bytes(config),
        device_bytes=card.num_bytes,
        replay_error=measured.replay_error,
    )


def _check_downloads(options: RunOptions, yes: bool) -> None:
    """Say what is downloaded, check the space for it, and ask."""
    from huggingface_hub import constants

    from ...plugins import installed_plugins

    catalogue = installed_plugins()
    rewards = [*(options.reward_funcs or ()), *(options.eval_reward_funcs or ())]
    found = [name for reward in rewards for name in downloads_of(catalogue.rewards[reward].spec.factory)]
    models = [options.model_name_or_path] if HUB_ID.fullmatch(options.model_name_or_path) else []
    missing = missing_downloads([*models, *found])
    total = sum(missing.values())
    each = ", ".join(f"{name} ({size / GB:.3g} GB)" for name, size in missing.items())
    print(f"downloads   {f'{total / GB:.3g} GB: {each}' if missing else 'none'}", flush=True)
    if missing:
        check_disk(Path(constants.HF_HUB_CACHE), total, "the download")
        agree(f"{total / GB:.3g} GB are downloaded before anything can be measured.", yes)


def _check_room(plan: Plan, config: DDPOConfig, disk_bytes: int, card: Card, parts: Mapping[str, float]) -> None:
    """Say what the run takes, and check that there is room for it."""
    needed, kind = plan.training_bytes, "card" if card.is_gpu else "machine"
    print(
        f"memory      about {needed / GB:.3g} GB to train, of {card.num_bytes / GB:.3g} GB of this {kind}",
        f"disk        about {disk_bytes / GB:.3g} GB",
        f"time        about {plan.hours:.3g} h for {plan.rollouts} rollouts, {plan.updates} updates",
        f"            {', '.join(f'{name} {part:.2g} s' for name, part in parts.items())}",
        sep="\n",
        flush=True,
    )
    check_disk(config.folder, disk_bytes, "the run")
    if needed > card.num_bytes:
        raise ConfigError(
            f"Training needs about {needed / GB:.3g} GB, and this {kind} has {card.num_bytes / GB:.3g} GB. Give a smaller "
            "--memory or --rows_per_forward, or use a smaller model."
        )
