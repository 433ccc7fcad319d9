"""`ddpo doctor`: whether a pipeline can be trained, and what was found on the way."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..doctor.facts import (
    AdapterFacts,
    CallFacts,
    CostFacts,
    DenoiserFacts,
    Facts,
    GradientFacts,
    GuidanceFacts,
    PipelineFacts,
    ReplayFacts,
    SamplerFacts,
)
from ..options import DDPOOptions, TrainerDefaults
from .options import LoraOptions, RunOptions
from .parse import load_preset, parse
from .train import lora_config

if TYPE_CHECKING:
    from ..config import DDPOConfig

PROG = "ddpo doctor"
WIDTH = 11  #: of the first column

NOTE = """
MODEL and all options are those of `ddpo train`, so that the command line or --config file of a training run can be asked
about; what has nothing to do with the pipeline is not used. Two images are made with --num_inference_steps, and three steps
of them trained. The exit status is 0 if the pipeline can be trained, 1 if it cannot.
"""


@dataclass
class DoctorOptions:
    """How to say it."""

    json: bool = field(default=False, metadata={"help": "Print JSON, for machines."})
    tiny: bool = field(
        default=False,
        metadata={
            "help": "Look at a twin with two layers of each kind and random weights, made from the configuration files alone: "
            "no weights are downloaded."
        },
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
    return _examine(options.model_name_or_path, lora, how, config)


def _help() -> int:
    from trl import TrlParser

    parser = TrlParser((DoctorOptions, RunOptions, LoraOptions, DDPOOptions, TrainerDefaults), prog=PROG)
    parser.usage = "ddpo doctor MODEL [options]"
    print(parser.format_help() + NOTE)
    return 0


def _examine(model: str, lora: LoraOptions, how: DoctorOptions, config: DDPOConfig) -> int:
    from ..doctor.examine import examine
    from ..doctor.tiny_copy import random_twin
    from ..plugins import guidance_from_plugins

    examined = random_twin(model, config.weights_dtype) if how.tiny else model
    of_twin = " (a twin with few layers and random weights)" * how.tiny
    adapter = None if config.full_finetuning else lora_config(lora)
    with _bar(config) as bar:

        def show(facts: Facts) -> None:
            if not how.json:
                bar.clear()
                print_facts(facts)

        report = examine(examined, config, adapter, guidance_from_plugins(), show, lambda step: bar.update())
    if how.json:
        print(json.dumps(report.to_dict(), indent=2))
    elif report.refusal is None:
        _print("verdict", f"can be trained{of_twin}")
    else:
        _print("verdict", f"cannot be trained{of_twin}. {report.refusal}")
    return 0 if report.can_be_trained else 1


@contextmanager
def _bar(config: DDPOConfig) -> Iterator[Any]:
    from tqdm.auto import tqdm

    with tqdm(
        total=config.num_inference_steps, desc="two images", unit="step", leave=False, disable=config.disable_tqdm
    ) as bar:
        yield bar


def print_facts(facts: Facts) -> None:
    """Print one part of the report."""
    for label, text in LINES[type(facts)](facts):
        _print(label, text)


def _print(label: str, text: str) -> None:
    print(f"{label.ljust(WIDTH)} {text}")
    sys.stdout.flush()


def _pipeline(facts: PipelineFacts) -> list[tuple[str, str]]:
    return [("pipeline", f"{facts.pipeline} ({', '.join(facts.components)}), {facts.scheduler}")]


def _denoiser(facts: DenoiserFacts) -> list[tuple[str, str]]:
    size = f"{facts.num_parameters / 1e6:.3g} M parameters"
    return [("denoiser", f"{facts.component}: {facts.kind}, {size}, {facts.dtype}")]


def _sampler(facts: SamplerFacts) -> list[tuple[str, str]]:
    noisy, first, last = len(facts.stochastic_steps), facts.stochastic_steps[0], facts.stochastic_steps[-1]
    steps = f"{facts.num_steps} steps, {noisy} with noise ({first} to {last})"
    heaviest = f"largest |b| / std {facts.largest_weight:.3g} in step {facts.heaviest_step}"
    return [("sampler", f"{facts.sampler}: {steps}, {heaviest}")]


def _guidance(facts: GuidanceFacts) -> list[tuple[str, str]]:
    if facts.num_outputs == 1:
        text = f"{facts.rule}: one denoiser output a step"
    else:
        order = "conditional first" if facts.cond_first else "conditional last"
        text = f"{facts.rule} of {facts.num_outputs} denoiser outputs, {order}, scale {facts.scale:g}"
    negated = ", negated" if facts.sign < 0 else ""
    return [("guidance", f"{text}{negated}; off by {facts.error:.1e}")]


def _call(facts: CallFacts) -> list[tuple[str, str]]:
    rows = f"{facts.copies} row(s) an image" if facts.copies > 1 else "1 row an image"
    lists = set(facts.lists)
    own = ", ".join(f"{name} (a list)" if name in lists else name for name in facts.per_image)
    shape = "x".join(map(str, facts.row_shape))
    return [
        (
            "call",
            f"{facts.latents} {shape} {facts.dtype}{' (a list)' * (facts.latents in lists)}, {facts.timestep}; {rows}",
        ),
        ("", f"per image: {own or 'nothing'}; shared: {', '.join(facts.shared) or 'nothing'}"),
    ]


def _adapter(facts: AdapterFacts) -> list[tuple[str, str]]:
    if not facts.targets:
        return [("training", f"all {facts.num_parameters / 1e6:.3g} M parameters; loads with {facts.loaded_by}")]
    size = f"{facts.num_layers} layers ({', '.join(facts.targets)}), {facts.num_parameters / 1e3:.4g} k parameters"
    return [("adapter", f"{size}; {', '.join(facts.files)} loads with {facts.loaded_by}")]


def _replay(facts: ReplayFacts) -> list[tuple[str, str]]:
    height, width, _ = facts.image_shape
    how = "repeats the prompt" if facts.repeats_prompts else "num_images_per_prompt"
    return [
        ("images", f"{width} x {height}; several of a prompt by {how}"),
        (
            "replay",
            f"|ratio - 1| {facts.same_layout:.1e} as sampled, {facts.mixed_steps:.1e} in a batch of other steps",
        ),
    ]


def _gradient(facts: GradientFacts) -> list[tuple[str, str]]:
    reached = facts.num_tensors - len(facts.without)
    lines = [("gradient", f"reaches {reached} of {facts.num_tensors} trained tensors")]
    if facts.without:
        more = " ..." * (len(facts.without) > 3)
        lines.append(
            ("", f"not {', '.join(facts.without[:3])}{more}: these learn nothing; leave them out of the adapter")
        )
    return lines


def _cost(facts: CostFacts) -> list[tuple[str, str]]:
    seconds = (
        f"{facts.sampling_seconds:.3g} s to sample an image, {facts.training_seconds:.3g} s to train one step of it"
    )
    return [("cost", f"{seconds}, {facts.peak_bytes / 2**30:.3g} GiB at most, on {facts.device}")]


LINES: dict[type, Any] = {
    PipelineFacts: _pipeline,
    DenoiserFacts: _denoiser,
    SamplerFacts: _sampler,
    GuidanceFacts: _guidance,
    CallFacts: _call,
    AdapterFacts: _adapter,
    ReplayFacts: _replay,
    GradientFacts: _gradient,
    CostFacts: _cost,
}
