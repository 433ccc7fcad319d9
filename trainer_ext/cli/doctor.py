"""`ddpo doctor`: whether a pipeline can be trained, and the facts behind the answer."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..doctor.report import Facts
from ..doctor.whole_run import costs_of, seconds_by_part
from ..options import DDPOOptions, FileOptions, InheritedOptions, TrainerDefaults, described, option
from ..values import CheckedOptions
from .evaluations.cost import describe_evaluations
from .options import LoraOptions, RunOptions
from .parse import load_preset, parse
from .screens.groups import GROUPS
from .screens.pages import options_page
from .training.build import lora_config
from .training.counts import counts_of

if TYPE_CHECKING:
    from ..config import DDPOConfig

PROG = "ddpo doctor"
WIDTH = 11  #: of the first column

NOTE = """
MODEL and all options are those of `ddpo train`, so that the command line or --config file of a training run can be checked;
options that have nothing to do with the pipeline are not used. Two images are made with --num_inference_steps, and three of
their steps are trained. The exit status is 0 if the pipeline can be trained, 1 if it cannot.
"""


@described
@dataclass
class DoctorOptions(CheckedOptions):
    """Options of `ddpo doctor` itself: the model to examine, and the form of the report."""

    json: bool = option(False, "Print JSON, for machines.")
    tiny: bool = option(
        False,
        "Examine a tiny copy with two layers of each kind and random weights, made from the configuration files alone: no "
        "weights are downloaded.",
    )


def run(arguments: list[str]) -> int:
    """Run the command. Exit status 1 if the pipeline cannot be trained."""
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--model_name_or_path", *arguments]
    if {"-h", "--help"} & set(arguments):
        return _help()
    from ..config import DDPOConfig
    from .quiet import quiet_libraries

    quiet_libraries()
    kinds = (RunOptions, LoraOptions, DoctorOptions, DDPOConfig)
    options, lora, how, config = parse(kinds, arguments, PROG, load_preset(arguments))
    return _examine(options, lora, how, config)


def _help() -> int:
    kinds = (DoctorOptions, RunOptions, LoraOptions, DDPOOptions, TrainerDefaults, InheritedOptions, FileOptions)
    own = {"how to examine": ("json", "tiny")}
    print(options_page(PROG, f"{PROG} MODEL [options]", kinds, {**own, **GROUPS}) + NOTE)
    return 0


def _examine(options: RunOptions, lora: LoraOptions, how: DoctorOptions, config: DDPOConfig) -> int:
    from ..doctor.examine import examine
    from ..doctor.tiny_copy import tiny_copy
    from ..loop.console import on_terminal
    from ..loop.progress.bars import StepBar
    from ..plugins import guidance_from_plugins

    model = options.model_name_or_path
    examined = tiny_copy(model, config.weights_dtype) if how.tiny else model
    of_copy = " (a tiny copy with few layers and random weights)" * how.tiny
    adapter = None if config.full_finetuning else lora_config(lora)
    if not on_terminal() and not config.disable_tqdm:
        print(f"two images: {config.num_inference_steps} denoising steps", file=sys.stderr, flush=True)
    with StepBar(config.num_inference_steps, "two images", not config.disable_tqdm) as bar:

        def show(facts: Facts) -> None:
            if not how.json:
                print_facts(facts)

        report = examine(examined, config, adapter, guidance_from_plugins(), show, lambda step: bar.on_step())
    if not how.json and report.refusal is None:
        if evaluations := describe_evaluations(options, config):
            _print("evaluation", evaluations)
        seconds = seconds_by_part(counts_of(options, config), costs_of(report, config.num_inference_steps))
        _print(
            "whole run", f"about {sum(seconds.values()) / 3600:.3g} h with evaluations and pictures, without rewards"
        )
    if how.json:
        print(json.dumps(report.to_dict(), indent=2))
    elif report.refusal is None:
        _print("verdict", f"can be trained{of_copy}")
    else:
        _print("verdict", f"cannot be trained{of_copy}. {report.refusal}")
    return 0 if report.can_be_trained else 1


def print_facts(facts: Facts) -> None:
    """Print one part of the report."""
    for label, text in facts.lines():
        _print(label, text)


def _print(label: str, text: str) -> None:
    print(f"{label.ljust(WIDTH)} {text}")
    sys.stdout.flush()
