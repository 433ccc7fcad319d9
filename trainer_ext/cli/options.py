"""Options of the command line that do not belong to the trainer. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ..options import described, option, parse_mapping
from ..values import CheckedOptions

NONE = "none"  #: what turns off the names that a preset gives


@described
@dataclass
class RunOptions(CheckedOptions):
    """Which model to train, on which prompts, for which rewards."""

    model_name_or_path: str = option(
        "embedded",
        "Hub id or folder of a diffusers pipeline; 'embedded' is the tiny one that ships with ddpo-plugins, 'embedded-posters' "
        "the same for typographic attacks.",
    )
    reward_funcs: list[str] | None = option(None, "Rewards by name; `ddpo rewards` lists them.")
    detectors: list[str] | None = option(
        None,
        "Detectors by name, which look for images that game the reward; `ddpo rewards` lists them. 'none' turns off those of a "
        "preset, here and in the options for evaluation.",
    )
    reward_kwargs: dict[str, Any] | str | None = option(
        None,
        'Options of rewards and detectors by name, as JSON: \'{"my_reward": {"scale": 2}}\'. In a config file, a mapping.',
    )
    prompts: str = option(
        "animals",
        "Name of a prompt set (`ddpo rewards`), a text file with one prompt per line, a file of rows with a column 'prompt' "
        "(.csv, .tsv, .json, .jsonl, .parquet), or a Hub dataset with this column.",
    )
    eval_prompts: list[str] | None = option(
        None,
        "Prompts for evaluation (--eval_strategy), named in the same way; with several sets, each has its own metrics.",
    )
    eval_reward_funcs: list[str] | None = option(None, "Additional rewards for evaluation, which are never trained on.")
    preset: list[str] | None = option(
        None,
        "Defaults for a task, such as 'lora/compressibility'; where several set an option, the last one wins. 'embedded' is "
        "used with the embedded model unless 'none' turns it off.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("detectors", "eval_prompts", "eval_reward_funcs"):
            if vars(self)[name] == [NONE]:
                setattr(self, name, [])


class DrawnWith(Protocol):
    """Options with which a command draws pictures; see [`DDPOOptions`]."""

    num_inference_steps: int
    eta: float
    pipeline_kwargs: dict[str, Any] | str | None

    @property
    def guidance_scale(self) -> float | None:
        """Without one, the pipeline's default counts."""


def settings_of(options: DrawnWith) -> dict[str, Any]:
    """
    Return the arguments for a call of the pipeline.

    Raises:
        [`ConfigError`]: `pipeline_kwargs` is no object.
    """
    given = options.pipeline_kwargs or {}
    guidance = {} if options.guidance_scale is None else {"guidance_scale": options.guidance_scale}
    return {
        "num_inference_steps": options.num_inference_steps,
        **guidance,
        "eta": options.eta,
        **(parse_mapping("pipeline_kwargs", given) if isinstance(given, str) else given),
    }


@described
@dataclass
class LoraOptions(CheckedOptions):
    """The LoRA adapter."""

    lora_r: int = option(4, "Rank of the adapter.")
    lora_alpha: int | None = option(None, "Scale of the adapter; the rank by default.")
    lora_target_modules: list[str] | None = option(
        None, "Layers that get an adapter; the attention projections by default."
    )
