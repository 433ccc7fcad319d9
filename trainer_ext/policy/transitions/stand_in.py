"""The stock scheduler that stands in for a pipeline's own."""

from __future__ import annotations

from typing import TypeAlias

from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from ...errors import PipelineError

Scheduler: TypeAlias = DDIMScheduler | FlowMatchEulerDiscreteScheduler


def stock_scheduler(scheduler: SchedulerMixin) -> Scheduler:
    """
    Return the scheduler of diffusers that samples, step by step, with the noise schedule of `scheduler`.

    Raises:
        [`PipelineError`]: there is no such scheduler.
    """
    flow = (FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler)
    if isinstance(scheduler, flow) or scheduler.config.get("prediction_type") == "flow_prediction":
        return _flow_scheduler(scheduler)
    return _ddim_scheduler(scheduler)


def _flow_scheduler(scheduler: SchedulerMixin) -> FlowMatchEulerDiscreteScheduler:
    """Stand in for FlowMatchEuler, FlowMatchHeun, and for DPM-Solver and UniPC with `flow_prediction`."""
    if scheduler.config.get("invert_sigmas"):
        raise PipelineError(
            "The pipeline's scheduler has invert_sigmas=True; sampling from image to noise is not supported."
        )
    shift = {"shift": scheduler.config["flow_shift"]} if "flow_shift" in scheduler.config else {}
    return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config, stochastic_sampling=False, **shift)


def _ddim_scheduler(scheduler: SchedulerMixin) -> DDIMScheduler:
    """Stand in for DDIM, DDPM, PNDM, Euler, DPM-Solver, UniPC, ..."""
    if DDIMScheduler not in [type(scheduler), *scheduler.compatibles]:
        raise PipelineError(
            f"The pipeline's scheduler is a {type(scheduler).__name__}, whose noise schedule neither DDIM nor flow matching "
            "can use. DDPO needs one that is interchangeable with DDIMScheduler (DDIM, DDPM, PNDM, Euler, DPM-Solver, UniPC, "
            "...) or FlowMatchEulerDiscreteScheduler; set pipeline.scheduler to one of them. The algorithms 'awm' and 'nft' take "
            "a pipeline's own scheduler."
        )
    # Clipping the predicted x_0 zeroes its gradient. `from_config` turns it on where the key is missing, and drops values
    # that the old scheduler had by default: only keywords count.
    config = dict(scheduler.config)
    if "variance_type" in config:  # pipelines read it, and drop a learned variance, for which DDIM has no use
        config["variance_type"] = "fixed_small"
    return DDIMScheduler.from_config(config, clip_sample=False, thresholding=False)
