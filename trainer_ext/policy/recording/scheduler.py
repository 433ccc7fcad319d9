"""A scheduler that samples from Gaussians and reports each step: the policy's half of a denoising loop."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

from ...errors import PipelineError
from ..transfer import to_device
from ..transitions.gaussian import TransitionTable, column
from ..transitions.noising import NoisingTable
from ..transitions.own import is_flow
from ..transitions.samplers import Sampler


@dataclass(frozen=True)
class Transition:
    """
    One denoising step of a run.

    Parameters:
        step (`int`):
            0 to T-1, noisiest first.
        latents (`torch.Tensor` of shape `(B, ...)`, float32):
            State before, as the denoiser gets it.
        model_output (`torch.Tensor` of shape `(B, ...)`):
            The guided prediction, in the dtype in which the pipeline computed it.
        given, next_latents (`torch.Tensor` of shape `(B, ...)`, float32):
            State that the scheduler was given, and that it returned. `given` is `latents`, unless the scheduler scales what the
            denoiser gets.
    """

    step: int
    latents: torch.Tensor
    model_output: torch.Tensor
    given: torch.Tensor
    next_latents: torch.Tensor


def recording_scheduler(
    sampler: Sampler,
    generators: Sequence[torch.Generator] | None,
    on_start: Callable[[TransitionTable, NoisingTable], None],
    on_step: Callable[[Transition], None],
) -> SchedulerMixin:
    """Return a scheduler for one run of the pipeline: one that draws from Gaussians, or the pipeline's own. Both report steps."""
    make = solver_scheduler if sampler.takes_own_steps else log_prob_scheduler
    return make(sampler, generators, on_start, on_step)


def solver_scheduler(
    sampler: Sampler,
    generators: Sequence[torch.Generator] | None,
    on_start: Callable[[TransitionTable, NoisingTable], None],
    on_step: Callable[[Transition], None],
) -> SchedulerMixin:
    """
    Return a scheduler like the pipeline's own, which takes its own steps and reports them. See [`log_prob_scheduler`].

    Solvers that draw noise get the images' own generators, also where the pipeline does not pass any on.
    """
    new = type(sampler.scheduler).from_config(sampler.scheduler.config)
    loop, take_step, scales = _Loop(), new.step, not is_flow(new)
    draws = "generator" in inspect.signature(take_step).parameters

    @functools.wraps(take_step)  # pipelines look for `eta` and `generator` among its parameters
    def step(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        loop.next_step(sampler, new, timestep, sample, generators, on_start)
        latents = new.scale_model_input(sample, timestep) if scales else sample
        if draws and not args and kwargs.get("generator") is None and generators is not None:
            kwargs["generator"] = list(generators)
        result = take_step(model_output, timestep, sample, *args, **kwargs)
        next_latents = result[0]
        on_step(Transition(loop.step, latents.float(), model_output, sample.float(), next_latents.float()))
        loop.step += 1
        return result

    new.step = step
    return new


def log_prob_scheduler(
    sampler: Sampler,
    generators: Sequence[torch.Generator] | None,
    on_start: Callable[[TransitionTable, NoisingTable], None],
    on_step: Callable[[Transition], None],
) -> SchedulerMixin:
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
        table = loop.next_step(sampler, new, timestep, sample, generators, on_start)
        index = torch.tensor([loop.step])
        latents = sample.float()
        noise = _noise(latents, generators)
        std = column(table.std, index, latents)
        next_latents = table.mean(index, latents, model_output) + std * noise
        on_step(Transition(loop.step, latents, model_output, latents, next_latents))
        loop.step += 1
        if loop.step == table.num_steps:  # the decoder expects the pipeline's own dtype
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


def _first_step(scheduler: Any, timestep: Any) -> int:
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

    def next_step(
        self,
        sampler: Sampler,
        scheduler: Any,
        timestep: Any,
        sample: torch.Tensor,
        generators: Sequence[torch.Generator] | None,
        on_start: Callable[[TransitionTable, NoisingTable], None],
    ) -> TransitionTable:
        """Check what the scheduler is given for its next step, report the tables before the first one, and return them."""
        if self.table is None:
            first = _first_step(scheduler, timestep)
            self.table, self.dtype = sampler.transitions(scheduler).starting_at(first), sample.dtype
            on_start(self.table, sampler.noising(scheduler).starting_at(first))
        if self.step == self.table.num_steps:
            raise PipelineError("The pipeline took more denoising steps than its scheduler has timesteps.")
        _check_rows(sample, generators)
        return self.table


def _noise(latents: torch.Tensor, generators: Sequence[torch.Generator] | None) -> torch.Tensor:
    """Draw noise in the shape of `latents`, where the generators are: on the host while the device still computes a step."""
    if generators is None:
        return randn_tensor(latents.shape, device=latents.device)
    place = generators[0].device
    return to_device(randn_tensor(latents.shape, generator=list(generators), device=place), latents.device)
