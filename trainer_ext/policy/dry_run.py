"""The dry run: finds out from a pipeline's first step how it calls its denoiser."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ddpo_plugins import GuidanceSpec
from ddpo_plugins.errors import DDPOError

from ..errors import PipelineError
from .guidance.inference import Guidance, infer_guidance
from .recording.calls import CallLayout, DenoiserCall, flatten, infer_layout, is_close
from .recording.run import branches_of, check_latents
from .recording.scheduler import Transition
from .runner import Runner
from .transitions.gaussian import TransitionTable
from .transitions.noising import NoisingTable

# Of unequal length: some pipelines pass a mask only when prompts are padded.
PROBE_PROMPTS = ("a cat", "a dog riding a bike", "two bears")


@dataclass(frozen=True)
class Findings:
    """
    The findings of the dry run.

    Parameters:
        layouts (`tuple[CallLayout, ...]`):
            One for each denoiser call of a step.
        guidance ([`Guidance`]):
            The rule that combines their outputs.
        error (`float`):
            Relative error of the rule.
        table ([`TransitionTable`]), noising ([`NoisingTable`]):
            Tables of the sampler's steps.
        repeats_prompts (`bool`):
            Whether several images of a prompt need the prompt repeated, because `num_images_per_prompt` does not work.
    """

    layouts: tuple[CallLayout, ...]
    guidance: Guidance
    error: float
    table: TransitionTable
    noising: NoisingTable
    repeats_prompts: bool


def dry_run(runner: Runner, rules: Sequence[Sequence[GuidanceSpec]]) -> Findings:
    """
    Run the first step with 2 and with 3 prompts.

    Raises:
        [`PipelineError`], [`GuidanceError`]: the pipeline cannot be recorded; the message says why.
    """
    two, *_ = _first_step(runner, PROBE_PROMPTS[:2])
    three, transition, table, noising = _first_step(runner, PROBE_PROMPTS)
    _check_calls(runner.denoiser_name, len(two), len(three))
    layouts = tuple(infer_layout(a, b) for a, b in zip(two, three, strict=True))
    for layout, call in zip(layouts, three, strict=True):
        check_latents(layout, call, transition)
    outputs = branches_of(layouts, three, transition.latents.shape[1:])
    guidance = infer_guidance(rules, outputs, transition.model_output, runner.call_arguments())
    error = guidance.error(outputs, transition.model_output)
    return Findings(layouts, guidance, error, table, noising, not _repeats_arguments(runner))


def first_calls(runner: Runner) -> list[DenoiserCall]:
    """Return the denoiser's calls of one image's first step, with their outputs."""
    calls, *_ = _first_step(runner, PROBE_PROMPTS[:1])
    return calls


def _check_calls(denoiser: str, for_two: int, for_three: int) -> None:
    if not for_three:
        raise PipelineError(
            f"The pipeline took its first step without calling pipeline.{denoiser}: another of its components predicts, or a "
            "method of it that is not its forward. It cannot be recorded."
        )
    if for_two != for_three:
        raise PipelineError(
            f"The pipeline called its denoiser {for_two} times in the first step for 2 prompts and {for_three} times for 3; "
            "DDPO needs pipelines that call it for all images at once."
        )


class _StopDryRun(Exception):  # noqa: N818 - not an error
    """Ends the pipeline's call."""


def _first_step(
    runner: Runner, prompts: Sequence[str]
) -> tuple[list[DenoiserCall], Transition, TransitionTable, NoisingTable]:
    seen: list[tuple[list[DenoiserCall], Transition]] = []
    tables: list[tuple[TransitionTable, NoisingTable]] = []

    def stop(calls: list[DenoiserCall], transition: Transition) -> None:
        seen.append((calls, transition))
        raise _StopDryRun

    try:
        runner.run({"prompt": list(prompts)}, _generators(len(prompts)), None, stop, lambda *both: tables.append(both))
    except (_StopDryRun, DDPOError) as end:
        if isinstance(end, DDPOError):
            raise
    except Exception as error:  # the pipeline's code may raise anything
        raise PipelineError(_failure(runner, prompts, error)) from error
    if not seen:
        raise PipelineError(
            "The pipeline made images without calling pipeline.scheduler.step; it cannot be recorded. If it runs "
            "other pipelines (Combined), train the one that denoises."
        )
    return *seen[0], *tables[0]


def _failure(runner: Runner, prompts: Sequence[str], error: Exception) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in runner.call_kwargs.items())
    return (
        f"{type(runner.pipeline).__name__} failed in the dry run with {type(error).__name__}: {error}\nIt was called with "
        f"prompt={list(prompts)}, {arguments}, one generator for each image, and a {type(runner.sampler.scheduler).__name__} "
        f"in place of its {type(runner.pipeline.scheduler).__name__}. If an argument is missing or wrong, set it in "
        "pipeline_kwargs; if the pipeline needs its own scheduler, or cannot take several prompts, DDPO cannot train it."
    )


def _repeats_arguments(runner: Runner) -> bool:
    """
    Return whether `num_images_per_prompt` calls the denoiser with the same arguments as repeated prompts.

    Some pipelines repeat masks in another order than embeddings, or forget an argument.
    """
    two = {"prompt": list(PROBE_PROMPTS[:2]), "num_images_per_prompt": 2}
    four = {"prompt": [PROBE_PROMPTS[0]] * 2 + [PROBE_PROMPTS[1]] * 2}
    try:
        return is_close(_first_call(runner, two), _first_call(runner, four))
    except (TypeError, ValueError, RuntimeError):  # it has no such argument, or cannot do it
        return False


def _first_call(runner: Runner, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the first denoiser call of 4 images."""
    seen: list[dict[str, Any]] = []

    def stop(**named: Any) -> None:
        seen.append(flatten(named))
        raise _StopDryRun

    with contextlib.suppress(_StopDryRun):
        runner.run(arguments, _generators(4), stop, lambda calls, transition: None)
    return seen[0]


def _generators(number: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(index) for index in range(number)]
