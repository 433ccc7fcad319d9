"""The dry run: how a pipeline calls its denoiser, learned from its first step."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ddpo_plugins import GuidanceSpec

from ..errors import PipelineError
from .guidance import Guidance, infer_guidance
from .noising import NoisingTable
from .recorder import CallLayout, DenoiserCall, flatten, infer_layout, is_close
from .recording import branches_of
from .runner import Runner
from .scheduler import Transition
from .transitions import TransitionTable

# Of unequal length: some pipelines pass a mask only when prompts are padded.
PROBE_PROMPTS = ("a cat", "a dog riding a bike", "two bears")


@dataclass(frozen=True)
class Findings:
    """
    What the dry run found.

    Parameters:
        layouts (`tuple[CallLayout, ...]`):
            One for each denoiser call of a step.
        guidance ([`Guidance`]):
            The rule that combines their outputs.
        error (`float`):
            How far the rule is off, relative.
        table ([`TransitionTable`]), noising ([`NoisingTable`]):
            Of the sampler's steps.
        repeats_prompts (`bool`):
            Whether several images of a prompt must be asked for by repeating it.
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
        [`PipelineError`], [`GuidanceError`]: it cannot be recorded; the message says why.
    """
    two, *_ = _first_step(runner, PROBE_PROMPTS[:2])
    three, transition, table, noising = _first_step(runner, PROBE_PROMPTS)
    layouts = tuple(infer_layout(a, b) for a, b in zip(two, three, strict=True))
    outputs = branches_of(layouts, three, transition.latents.shape[1:])
    guidance = infer_guidance(rules, outputs, transition.model_output, runner.call_arguments())
    error = guidance.error(outputs, transition.model_output)
    return Findings(layouts, guidance, error, table, noising, not _repeats_arguments(runner))


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

    with contextlib.suppress(_StopDryRun):
        runner.run({"prompt": list(prompts)}, _generators(len(prompts)), None, stop, lambda *both: tables.append(both))
    if not seen:
        raise PipelineError("The pipeline made images without calling scheduler.step; it cannot be recorded.")
    return *seen[0], *tables[0]


def _repeats_arguments(runner: Runner) -> bool:
    """
    Whether `num_images_per_prompt` calls the denoiser with what repeated prompts do.

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
