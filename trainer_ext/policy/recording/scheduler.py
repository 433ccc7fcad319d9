"""A scheduler that samples from Gaussians and reports each step: the policy's half of a denoising loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

from ...errors import PipelineError
from ..transfer import to_device
from ..transitions.gaussian import TransitionTable, column
from ..transitions.noising import NoisingTable
from ..transitions.samplers import Sampler
from ..transitions.stand_in import Scheduler


@dataclass(frozen=True)
class Transition:
    """
    One denoising step of a run.

    Parameters:
        step (`int`):
            0 to T-1, noisiest first.
        latents, next_latents (`torch.Tensor` of shape `(B, ...)`, float32):
            State before and after.
        model_output (`torch.Tensor` of shape `(B, ...)`):
            The guided prediction, in the dtype in which the pipeline computed it.
    """

    step: int
    latents: torch.Tensor
    model_output: torch.Tensor
    next_latents: torch.Tensor


def log_prob_scheduler(
    sampler: Sampler,
    generators: Sequence[torch.Generator] | None,
    on_start: Callable[[TransitionTable, NoisingTable], None],
    on_step: Callable[[Transition], None],
) -> Scheduler:
    """
    Return a scheduler for one run of the pipeline.

    Its class is still diffusers' own, for which pipelines test; only this instance's `step` is replaced. It draws the next
    latents from the step's Gaussian and keeps them in float32, so that the stored latents are exactly those that were used.

    Args:
        sampler ([`Sampler`]):
            Source of configuration and tables; its scheduler is not changed.
        generators (`Sequence[torch.Generator]`, *optional*):
            One for each image, so that an image does not depend on the batch it was made in.
        on_start (`Callable`):
            Called with the tables of the run before the first step.
        on_step (`Callable`):
            Called with each [`Transition`].
    """
    new = type(sampler.scheduler).from_config(sampler.scheduler.config)
    loop = _Loop()

    def step(
        model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, return_dict: bool = True, **_: Any
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        if loop.table is None:
            first = _first_step(new, timestep)
            loop.table, loop.dtype = sampler.transitions(new).starting_at(first), sample.dtype
            on_start(loop.table, sampler.noising(new).starting_at(first))
        if loop.step == loop.table.num_steps:
            raise PipelineError("The pipeline took more denoising steps than its scheduler has timesteps.")
        _check_rows(sample, generators)
        index = torch.tensor([loop.step])
        latents = sample.float()
        noise = _noise(latents, generators)
        std = column(loop.table.std, index, latents)
        next_latents = loop.table.mean(index, latents, model_output) + std * noise
        on_step(Transition(loop.step, latents, model_output, next_latents))
        loop.step += 1
        if loop.step == loop.table.num_steps:  # the decoder expects the pipeline's own dtype
            next_latents = next_latents.to(loop.dtype)
        return SchedulerOutput(prev_sample=next_latents) if return_dict else (next_latents,)

    new.step = step
    return new


def _check_rows(sample: torch.Tensor, generators: Sequence[torch.Generator] | None) -> None:
    if generators is not None and len(sample) != len(generators):
        raise PipelineError(
            f"The pipeline gives its scheduler {tuple(sample.shape)} for {len(generators)} images; DDPO needs one row for each "
            "image. For a video pipeline, use one frame (pipeline_kwargs with num_frames=1); images that are drawn "
            "one by one, tiles and layers cannot be recorded."
        )


def _first_step(scheduler: Scheduler, timestep: Any) -> int:
    """Return the index of the pipeline's first timestep; above 0 if it starts from a noised image instead of from noise."""
    found = (scheduler.timesteps == timestep).nonzero().flatten()
    if not len(found):
        raise PipelineError(
            f"The pipeline's first step is at timestep {timestep}, which its scheduler does not have; it cannot be recorded."
        )
    return int(found[0])


@dataclass
class _Loop:
    step: int = 0
    table: TransitionTable | None = None
    dtype: torch.dtype | None = None


def _noise(latents: torch.Tensor, generators: Sequence[torch.Generator] | None) -> torch.Tensor:
    """Draw noise in the shape of `latents`, where the generators are: on the host while the device still computes a step."""
    if generators is None:
        return randn_tensor(latents.shape, device=latents.device)
    place = generators[0].device
    return to_device(randn_tensor(latents.shape, generator=list(generators), device=place), latents.device)
