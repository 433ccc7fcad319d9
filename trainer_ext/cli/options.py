"""Options of the command line that are not of the trainer. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class RunOptions:
    """What to train, on what, for what."""

    model_name_or_path: str = field(
        default="embedded",
        metadata={
            "help": "Hub id or folder of a diffusers pipeline; 'embedded' is the tiny one that ships with ddpo-plugins."
        },
    )
    reward_funcs: list[str] | None = field(
        default=None, metadata={"help": "Rewards by name; `ddpo rewards` lists them."}
    )
    detectors: list[str] | None = field(
        default=None, metadata={"help": "Detectors by name, which watch for images that game the reward."}
    )
    reward_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": 'Options of rewards and detectors by name, as JSON: \'{"my_reward": {"scale": 2}}\'. In a file: a mapping.'
        },
    )
    prompts: str = field(
        default="animals",
        metadata={"help": "Name of a prompt set (`ddpo rewards`), a text file with a prompt a line, or a Hub dataset."},
    )
    eval_prompts: list[str] | None = field(
        default=None,
        metadata={"help": "The same, for evaluation (--eval_strategy); of several, each gets metrics of its own."},
    )
    eval_reward_funcs: list[str] | None = field(
        default=None, metadata={"help": "More rewards for evaluation, which are never trained on."}
    )
    preset: list[str] | None = field(
        default=None,
        metadata={
            "help": "Defaults for a task, such as 'lora/compressibility'; of several, the last wins. 'embedded' is used with the "
            "embedded model; 'none' turns it off."
        },
    )


@dataclass
class LoraOptions:
    """The adapter."""

    lora_r: int = field(default=4, metadata={"help": "Rank of the adapter."})
    lora_alpha: int | None = field(default=None, metadata={"help": "Scale of the adapter; the rank by default."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Layers that get an adapter; the attention projections by default."}
    )
