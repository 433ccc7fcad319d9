"""What of a run may be different when it is resumed, what that changes, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from ...config import DDPOConfig
from ...errors import CheckpointError
from ...options import default_of
from ..measures.phases import DRAWN_WITH

Setup = Mapping[str, Any]  #: a [`RunSetup`] as JSON holds it
Memory = Sequence[Mapping[str, Sequence[float]]]  #: remembered rewards by prompt, for each baseline

# What the state of a run belongs to, with the reason.
OF_A_RUN = {
    "pipeline": "its weights belong to that pipeline",
    "updates_per_rollout": "the updates of a run tell its rollouts apart, so each must have as many as before",
    "optim": "the optimizer's state fits no other",
    "optim_args": "the optimizer's state fits no other",
    "lr_scheduler_type": "the schedule's state fits no other",
}
# What the rollout that is being trained on was sampled with, and what decides which update trains which of its images.
OF_A_ROLLOUT = (
    "seed",
    *DRAWN_WITH,
    "num_images_per_rollout",
    "num_inner_epochs",
    "images_per_update",
)
BATCHES = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_inner_epochs", "num_images_per_rollout")
LENGTHS = ("num_train_epochs", "max_steps")  # how a run is prolonged: no news


def check_setup(checkpoint: Path, saved: Setup, setup: Setup, in_a_rollout: bool) -> None:
    """
    Check that a run with this setup can go on where another left a checkpoint.

    Args:
        checkpoint (`Path`):
            The checkpoint's folder.
        saved, setup (`Mapping[str, Any]`):
            The setup that it was written with, and that of this run.
        in_a_rollout (`bool`):
            True if it was written while updates on a rollout were still to come.

    Raises:
        [`CheckpointError`]: it cannot; the message says why, and what to change.
    """
    there, here = _values(saved), _values(setup)
    for name, reason in OF_A_RUN.items():
        if there[name] != here[name]:
            raise CheckpointError(
                f"{checkpoint} belongs to a run with {_difference(name, there, here)}: {reason}. Resume with the original "
                "options, or begin a new run in another output_dir."
            )
    if saved["base"] and setup["base"] and saved["base"] != setup["base"]:
        _check_base(checkpoint, saved, setup)
    for name in OF_A_ROLLOUT if in_a_rollout else ():
        if there[name] != here[name]:
            raise CheckpointError(
                f"{checkpoint} was written during training on a rollout with {_difference(name, there, here)}: the rest of the "
                "rollout would be trained by other rules, or not at all. Resume with the original option, or from a "
                "checkpoint at the end of a rollout."
            )


def _check_base(checkpoint: Path, saved: Setup, setup: Setup) -> None:
    if saved["base"]["dtype"] == setup["base"]["dtype"]:  # in another precision, equal weights differ
        raise CheckpointError(
            f"{checkpoint} holds an adapter of another model{_named(saved)}: the weights of this run's model{_named(setup)} "
            "that are not trained differ from those. Resume with the original model."
        )


def _named(setup: Setup) -> str:
    return f" ({setup['model']})" if setup["model"] else ""


def changes(saved: Setup, setup: Setup) -> list[str]:
    """Return the options and prompts that are different from here on, as `name old -> new`."""
    there, here = saved["options"], setup["options"]
    names = [name for name in {**there, **here} if name not in LENGTHS]
    values = {name: (_option(there, name), _option(here, name)) for name in names}
    values["prompts"] = (saved["prompts"]["fingerprint"], setup["prompts"]["fingerprint"])
    return [f"{name} {old} -> {new}" for name, (old, new) in values.items() if old != new]


def remembered(saved: Setup, setup: Setup, memory: Memory) -> tuple[Memory | None, list[str]]:
    """
    Choose the remembered rewards that are still those of the run's rewards.

    Returns:
        `tuple`: the memory of each baseline, or `None` to remember nothing; and the objectives that begin without one.
    """
    there, here = _objectives(saved), _objectives(setup)
    if list(there.items()) == list(here.items()):  # in the same order, in which the memory is
        return memory, []
    if not any(memory):
        return None, []
    new = [name for name in here if here[name] != there.get(name)]
    if len(memory) != len(there):  # an algorithm of the user's own keeps its memory in another way
        return None, new
    kept = dict(zip(there, memory, strict=True))
    return [{} if name in new else kept[name] for name in here], new


def _objectives(setup: Setup) -> dict[str, str]:
    """Return a fingerprint for each baseline, by what it compares: the sum of all objectives, or each objective."""
    detectors = {name: entry for name, entry in setup["detectors"].items() if entry["weight"]}
    each = {name: _computed(entry) for name, entry in {**setup["rewards"], **detectors}.items()}
    if _option(setup["options"], "multi_objective_aggregation") == "sum_then_normalize":
        return {" + ".join(sorted(each)): _digest(each)}
    return {name: _digest({**entry, "weight": None}) for name, entry in each.items()}


def _computed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides about a function's values: of one that is computed elsewhere, not where."""
    return {"served": entry["served"], "weight": entry["weight"]} if "served" in entry else dict(entry)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def apply_changes(optimizer: Any, scheduler: Any, saved: Setup, setup: Setup) -> None:
    """
    Give the optimizer and its schedule, which were restored with the options of a checkpoint, those of this run.

    Groups of parameters for which the user's own optimizer has other values keep them.

    Raises:
        [`CheckpointError`]: the learning rate was changed, and the schedule computes it from its own past.
    """
    old, new = _hyperparameters(saved), _hyperparameters(setup)
    for key in [key for key in old if old[key] != new[key]]:
        # of the two groups that `Trainer` makes, the second never has weight decay
        for group in optimizer.param_groups if old[key] else optimizer.param_groups[:1]:
            if group.get(key) == old[key]:
                group[key] = new[key]
    if isinstance(scheduler, LambdaLR):
        scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        for group, base, factor in zip(optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = base * factor(scheduler.last_epoch)  # also for another number of steps
        scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
    elif old["initial_lr"] != new["initial_lr"]:
        raise CheckpointError(
            f"The learning rate was {old['initial_lr']} and is {new['initial_lr']}, which a {type(scheduler).__name__} cannot "
            "take over: it computes the rate from its own past. Resume with the original learning_rate."
        )


def _hyperparameters(setup: Setup) -> dict[str, Any]:
    """Return the optimizer's options by their names in its groups of parameters."""
    learning_rate, decay, eps, *betas = (
        _option(setup["options"], name)
        for name in ("learning_rate", "weight_decay", "adam_epsilon", "adam_beta1", "adam_beta2")
    )
    return {"initial_lr": learning_rate, "weight_decay": decay, "eps": eps, "betas": tuple(betas)}


def _values(setup: Setup) -> dict[str, Any]:
    options = {name: _option(setup["options"], name) for name in {*OF_A_RUN, *OF_A_ROLLOUT, *BATCHES} - _NO_OPTIONS}
    batch = options["per_device_train_batch_size"] * options["gradient_accumulation_steps"] * setup["processes"]
    counted = {"updates_per_rollout": setup["updates_per_rollout"], "images_per_update": batch}
    return {**options, **counted, "pipeline": setup["pipeline"]}


_NO_OPTIONS = {"pipeline", "updates_per_rollout", "images_per_update"}


def _difference(name: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Say what was given; of what is computed from the sizes of batches, also these."""
    sizes = [f"{size} {there[size]} -> {here[size]}" for size in BATCHES if there[size] != here[size]]
    because = f" ({', '.join(sizes)})" if name in _NO_OPTIONS and sizes else ""
    return f"{name}={there[name]!r}, and this run has {here[name]!r}{because}"


def _option(options: Mapping[str, Any], name: str) -> Any:
    """Return an option of a recorded run, which has only those that are not the default."""
    return options[name] if name in options else _DEFAULTS[name]


_DEFAULTS = {item.name: default_of(item) for item in fields(DDPOConfig)}
