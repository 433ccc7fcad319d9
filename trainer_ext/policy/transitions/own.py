"""The pipeline's own scheduler, unchanged: any solver, for algorithms that need no log-probability."""

from __future__ import annotations

import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    LCMScheduler,
    TCDScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from ...errors import PipelineError
from .flow import flow_noising
from .noising import NoisingTable, variance_preserving

FLOW_SOLVERS = (FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler, FlowMatchLCMScheduler)

#: Solvers of distilled models, which have DDIM's noise levels but are not interchangeable with it.
FEW_STEP_SOLVERS = (LCMScheduler, TCDScheduler)


def is_flow(scheduler: SchedulerMixin) -> bool:
    """Return whether a scheduler mixes image and noise as flow matching does, (1 - sigma) : sigma."""
    return isinstance(scheduler, FLOW_SOLVERS) or scheduler.config.get("prediction_type") == "flow_prediction"


def own_scheduler(scheduler: SchedulerMixin) -> SchedulerMixin:
    """
    Return a new scheduler of the same class and configuration.

    Raises:
        [`PipelineError`]: its noise levels are not known.
    """
    if not (is_flow(scheduler) or isinstance(scheduler, FEW_STEP_SOLVERS) or DDIMScheduler in scheduler.compatibles):
        raise PipelineError(
            f"The pipeline's scheduler is a {type(scheduler).__name__}, whose noise levels are not known, so that images cannot "
            "be noised again for training. Set pipeline.scheduler to one that is interchangeable with DDIMScheduler (DDIM, DDPM, "
            "Euler, DPM-Solver, UniPC, ...), to LCMScheduler or TCDScheduler, or to one of flow matching."
        )
    return type(scheduler).from_config(scheduler.config)


def own_noising(scheduler: SchedulerMixin) -> NoisingTable:
    """
    Tabulate the forward process at the timesteps at which a solver calls the denoiser.

    Args:
        scheduler (`SchedulerMixin`):
            A scheduler after `set_timesteps`.

    Raises:
        [`PipelineError`]: a step begins from noise alone, where a prediction of the noise says nothing about the image.
    """
    if is_flow(scheduler):
        sigmas = torch.as_tensor(scheduler.sigmas).double().cpu()
        return flow_noising(sigmas[: len(scheduler.timesteps) + 1])
    table = variance_preserving(_alphas_at(scheduler), scheduler.config.prediction_type)
    if not table.denoised_coef.isfinite().all():
        raise PipelineError(
            "A denoising step of this scheduler begins from noise alone (zero terminal SNR), and the denoiser predicts noise. "
            "Use a scheduler with timestep_spacing='leading', or another prediction_type."
        )
    return table


def _alphas_at(scheduler: SchedulerMixin) -> torch.Tensor:
    """
    Return the image's share of the variance at each timestep `(T,)`, float64.

    Between two whole timesteps the noise-to-signal ratio is linear, as where diffusers itself interpolates.
    """
    alphas = scheduler.alphas_cumprod.double().cpu()
    timesteps = torch.as_tensor(scheduler.timesteps).double().cpu().clamp(0, len(alphas) - 1)
    below, above = timesteps.floor().long(), timesteps.ceil().long()
    ratios = ((1 - alphas) / alphas).sqrt()
    between = torch.lerp(ratios[below], ratios[above], timesteps - below)
    return torch.where(below == above, alphas[below], 1 / (1 + between.square()))
