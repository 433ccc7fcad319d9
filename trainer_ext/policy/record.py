"""One call of a pipeline, recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..images import to_uint8
from .dry_run import Findings
from .recording.calls import DenoiserCall
from .recording.run import Recording
from .recording.scheduler import Transition
from .recording.trajectory import Trajectory
from .runner import Denoiser, Runner


@dataclass(frozen=True)
class Sampled:
    """
    The result of one call of the policy.

    Parameters:
        trajectory ([`Trajectory`]):
            The denoising runs.
        images (`torch.Tensor` of shape `(B, H, W, 3)`, uint8):
            The decoded images, RGB.
    """

    trajectory: Trajectory
    images: torch.Tensor


def run_recorded(
    runner: Runner,
    findings: Findings,
    arguments: Mapping[str, Any],
    generators: Sequence[torch.Generator],
    denoiser: Denoiser | None,
    on_step: Callable[[int], None],
    on_transition: Callable[[Transition], None],
) -> Sampled:
    """Run a pipeline as its dry run found it, with prompts in `arguments`; otherwise as [`LogProbPipeline.sample`] says."""
    recording = Recording(findings.layouts, findings.guidance)

    def record(calls: list[DenoiserCall], transition: Transition) -> None:
        recording.add(calls, transition)
        on_transition(transition)
        with recording.given_up_on_error():
            on_step(transition.step)

    try:
        images = runner.run(arguments, generators, denoiser, record, recording.start)
    except Exception:
        recording.verdicts.judge()  # what was wrong before, and may be the cause
        raise
    return Sampled(recording.finish(), to_uint8(images))


def prompt_arguments(findings: Findings, prompts: Sequence[str], num_images_per_prompt: int) -> dict[str, Any]:
    """Ask for several images of each prompt: by the argument for it where the pipeline gets that right."""
    if num_images_per_prompt == 1 or findings.repeats_prompts:
        return {"prompt": [prompt for prompt in prompts for _ in range(num_images_per_prompt)]}
    return {"prompt": list(prompts), "num_images_per_prompt": num_images_per_prompt}
