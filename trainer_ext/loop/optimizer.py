"""Checks that the optimizer and the schedule of a run can be made from its options, long before they are."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer, get_scheduler

from ..inherited import naming_refusals

STEPS = 100  #: of the schedule that is tried


def check_optimizer(args: Any) -> None:
    """
    Check the options of the optimizer.

    Args:
        args (`TrainingArguments`):
            The options.

    Raises:
        [`ConfigError`]: there is no such optimizer on this machine, or it takes no such options.
    """
    with naming_refusals(f"optim={args.optim.value!r} and optim_args={args.optim_args!r}"):
        Trainer.get_optimizer_cls_and_kwargs(args)


def check_schedule(args: Any) -> None:
    """
    Check the options of the schedule of the learning rate.

    Args:
        args (`TrainingArguments`):
            The options.

    Raises:
        [`ConfigError`]: it takes no such options, or lacks some.
    """
    kind, kwargs = args.lr_scheduler_type.value, args.lr_scheduler_kwargs
    with naming_refusals(f"lr_scheduler_type={kind!r} and lr_scheduler_kwargs={kwargs}"):
        get_scheduler(
            kind,
            optimizer=torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate),
            num_warmup_steps=args.get_warmup_steps(STEPS),
            num_training_steps=STEPS,
            scheduler_specific_kwargs=kwargs,
        )
