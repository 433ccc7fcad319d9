"""A scheduler that samples from Gaussians and reports each step: the policy's half of a denoising loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

from ..errors import ConfigError, PipelineError
from .noising import NoisingTable, ddim_noising
from .transitions import TransitionTable, ddim_table


@dataclass(frozen=True)
class Transition:
    """
    One denoising step, as it happened.

    Parameters:
        step (`int`):
            0 to T-1, noisiest first.
        latents, next_latents (`torch.Tensor` of shape `(B, ...)`, float32):
            State before and after.
        model_output (`torch.Tensor` of shape `(B, ...)`):
            The guided prediction, in the dtype the pipeline computed it in.
    """

    step: int
    latents: torch.Tensor
    model_output: torch.Tensor
    next_latents: torch.Tensor


def ddim_scheduler(scheduler: SchedulerMixin) -> DDIMScheduler:
    """
    Return a DDIM scheduler with the noise schedule of `scheduler`, which may be DDIM, PNDM, Euler, DPM-Solver, ...

    Raises:
        [`PipelineError`]: the scheduler is not of the DDIM family.
    """
    if DDIMScheduler not in [type(scheduler), *scheduler.compatibles]:
        raise PipelineError(
            f"The pipeline's scheduler is a {type(scheduler).__name__}, whose noise schedule DDIM cannot use. DDPO needs "
            "a scheduler that is interchangeable with DDIMScheduler (DDIM, DDPM, PNDM, Euler, DPM-Solver, UniPC, ...); "
            "set pipeline.scheduler to one of them."
        )
    # Clipping the predicted x_0 zeroes its gradient. `from_config` turns it on where the key is missing, and drops values
    # that the old scheduler had by default: only keywords count.
    return DDIMScheduler.from_config(scheduler.config, clip_sample=False, thresholding=False)


def log_prob_scheduler(
    scheduler: DDIMScheduler,
    eta: float,
    generators: Sequence[torch.Generator] | None,
    on_start: Callable[[TransitionTable, NoisingTable], None],
    on_step: Callable[[Transition], None],
) -> DDIMScheduler:
    """
    Return a scheduler for one run of the pipeline.

    Its class stays `DDIMScheduler`, for which pipelines test; only `step` of this instance is another: it draws the next
    latents in float32 from the step's Gaussian and keeps them in float32, so that what is stored is what was used.

    Args:
        scheduler (`DDIMScheduler`):
            Where the configuration comes from; left as it is.
        eta (`float`):
            Weight of the noise.
        generators (`Sequence[torch.Generator]`, *optional*):
            One for each image, so that an image does not depend on the batch it was made in.
        on_start (`Callable`):
            Called with the tables of the run before the first step.
        on_step (`Callable`):
            Called with each [`Transition`].
    """
    new = DDIMScheduler.from_config(scheduler.config)
    loop = _Loop()

    def step(
        model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, return_dict: bool = True, **_: Any
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        if loop.table is None:
            loop.table, loop.dtype = ddim_table(new, eta), sample.dtype
            on_start(loop.table, ddim_noising(new))
        if loop.step == loop.table.num_steps:
            raise PipelineError("The pipeline took more denoising steps than its scheduler has timesteps.")
        index = torch.tensor([loop.step])
        latents = sample.float()
        noise = randn_tensor(latents.shape, generator=_one_or_all(generators), device=latents.device)
        std = loop.table.std[loop.step].to(latents.device, torch.float32)
        next_latents = loop.table.mean(index, latents, model_output) + std * noise
        on_step(Transition(loop.step, latents, model_output, next_latents))
        loop.step += 1
        if loop.step == loop.table.num_steps:  # the decoder expects the pipeline's own dtype
            next_latents = next_latents.to(loop.dtype)
        return SchedulerOutput(prev_sample=next_latents) if return_dict else (next_latents,)

    new.step = step
    return new


@dataclass
class _Loop:
    step: int = 0
    table: TransitionTable | None = None
    dtype: torch.dtype | None = None


def _one_or_all(generators: Sequence[torch.Generator] | None) -> list[torch.Generator] | None:
    return list(generators) if generators is not None else None


def check_eta(eta: float) -> None:
    """Raise [`ConfigError`] unless steps with noise weight `eta` have log-probabilities."""
    if not 0 < eta <= 1:
        raise ConfigError(
            f"eta is {eta}; it must be in (0, 1]. With eta=0 denoising is deterministic and has no log-probabilities, so "
            "there is no policy to optimise; the paper uses eta=1."
        )
