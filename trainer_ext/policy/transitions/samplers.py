"""Chooses the Gaussians of a pipeline's denoising steps, once, from its scheduler and the options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from ...errors import ConfigError
from ...options import DDPOOptions
from .ddim import ddim_table
from .flow import cps_table, dance_sde_table, flow_noising, flow_sde_table, precise_table, windowed
from .gaussian import TransitionTable
from .noising import NoisingTable, ddim_noising
from .own import own_noising, own_scheduler
from .stand_in import stock_scheduler

FLOW_TABLES: dict[str, Callable[[torch.Tensor, float], TransitionTable]] = {
    "flow_sde": flow_sde_table,
    "dance_sde": dance_sde_table,
    "cps": cps_table,
    "precise": precise_table,
}

OWN = "own"  #: the pipeline's own scheduler, which has no log-probabilities

SAMPLERS = ("ddim", *FLOW_TABLES, OWN)


@dataclass(frozen=True)
class SamplerOptions:
    """
    The user's sampling options.

    Parameters:
        sampler (`str`, *optional*):
            `"ddim"`, `"flow_sde"`, `"dance_sde"`, `"cps"` or `"precise"`; or `"own"`, the pipeline's own scheduler, for
            algorithms that need no log-probability. The default depends on the scheduler: `"ddim"` or `"flow_sde"`.
        eta (`float`, *optional*, defaults to 1.0):
            Weight of DDIM's noise, in [0, 1]. With 0 no step has a log-probability.
        noise_level (`float`, *optional*, defaults to 0.7):
            Weight of the flow samplers' noise, above 0; for CPS at most 1.
        sde_window (`Sequence[int]`, *optional*):
            First and last step with noise, for the flow samplers; by default all steps have noise.

    Raises:
        [`ConfigError`]: a value that no sampler allows.
    """

    sampler: str | None = None
    eta: float = DDPOOptions.eta
    noise_level: float = DDPOOptions.noise_level
    sde_window: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.sampler not in (None, *SAMPLERS):
            raise ConfigError(
                f"sampler is {self.sampler!r}; it must be one of {', '.join(SAMPLERS)}, or left out for the one of the "
                "pipeline's scheduler."
            )
        if not 0 <= self.eta <= 1:
            raise ConfigError(
                f"eta is {self.eta}; it must be in (0, 1], or 0 for algorithms that need no log-probability; the paper uses 1."
            )
        if self.sampler == OWN and self.sde_window is not None:
            raise ConfigError(
                f"sampler is 'own', the pipeline's own scheduler, and sde_window is {list(self.sde_window)}; windows are for the "
                "samplers of flow matching. Leave one of them out."
            )
        if not 0 < self.noise_level < float("inf") or (self.sampler == "cps" and self.noise_level > 1):
            raise ConfigError(
                f"noise_level is {self.noise_level}; it must be greater than 0, and for 'cps' at most 1. Without noise there "
                "are no log-probabilities; Flow-GRPO uses 0.7, DanceGRPO 0.3, the authors of 'precise' 1.5."
            )

    def check_window(self, num_inference_steps: int) -> None:
        """Raise [`ConfigError`] unless `sde_window` is a range of steps."""
        window = self.sde_window
        if window is not None and not (len(window) == 2 and 0 <= window[0] <= window[1] < num_inference_steps):
            raise ConfigError(
                f"sde_window is {list(window)}; it must be two steps, the first and the last with noise, from 0 to "
                f"num_inference_steps - 1 = {num_inference_steps - 1}."
            )


@dataclass(frozen=True)
class Sampler:
    """
    The scheduler that samples in place of a pipeline's own.

    Parameters:
        name (`str`):
            One of `SAMPLERS`.
        scheduler (`SchedulerMixin`):
            The stand-in, with the pipeline's noise schedule, or a scheduler like the pipeline's own; pipelines set its timesteps
            as they do for their own.
        transitions (`Callable`):
            Maps a scheduler after `set_timesteps` to its [`TransitionTable`].
        noising (`Callable`):
            Maps the same scheduler to its [`NoisingTable`].
        stock_kwargs (`Mapping[str, Any]`):
            Arguments with which a stock pipeline with that scheduler samples most similarly.
    """

    name: str
    scheduler: SchedulerMixin
    transitions: Callable[[Any], TransitionTable]
    noising: Callable[[Any], NoisingTable]
    stock_kwargs: Mapping[str, Any]

    @property
    def takes_own_steps(self) -> bool:
        """Whether the scheduler takes its own steps, instead of steps that are drawn from the table's Gaussians."""
        return self.name == OWN

    def within(self, first: int, last: int) -> Sampler:
        """Return a sampler of flow matching whose steps have noise from `first` to `last` only."""

        def transitions(scheduler: Any) -> TransitionTable:
            return windowed(self.transitions(scheduler), _sigmas(scheduler), first, last)

        return replace(self, transitions=transitions)


def choose_sampler(scheduler: SchedulerMixin, options: SamplerOptions) -> Sampler:
    """
    Return the sampler that `options` name, or else the one of the scheduler's family.

    Raises:
        [`PipelineError`]: the scheduler belongs to no known family.
        [`ConfigError`]: the options are for the other family.
    """
    if options.sampler == OWN:
        own = own_scheduler(scheduler)
        return Sampler(OWN, own, lambda solver: TransitionTable.without_noise(len(solver.timesteps)), own_noising, {})
    stand_in = stock_scheduler(scheduler)
    if isinstance(stand_in, DDIMScheduler):
        if options.sampler not in (None, "ddim") or options.sde_window is not None:
            raise ConfigError(
                f"The pipeline's scheduler, a {type(scheduler).__name__}, is sampled by DDIM: leave sampler and sde_window "
                f"out. {', '.join(FLOW_TABLES)} and windows are for flow matching."
            )
        transitions = partial(ddim_table, eta=options.eta)
        return Sampler("ddim", stand_in, transitions, ddim_noising, {"eta": options.eta})
    name = options.sampler or "flow_sde"
    if name not in FLOW_TABLES:
        raise ConfigError(
            f"The pipeline's scheduler, a {type(scheduler).__name__}, is flow matching's, and sampler is {name!r}; use one of "
            f"{', '.join(FLOW_TABLES)}, or leave it out."
        )
    return Sampler(name, stand_in, partial(_flow_transitions, FLOW_TABLES[name], options), _flow_noising, {})


def _flow_transitions(
    tabulate: Callable[[torch.Tensor, float], TransitionTable], options: SamplerOptions, scheduler: Any
) -> TransitionTable:
    sigmas = _sigmas(scheduler)
    table = tabulate(sigmas, options.noise_level)
    return table if options.sde_window is None else windowed(table, sigmas, *options.sde_window)


def _flow_noising(scheduler: Any) -> NoisingTable:
    return flow_noising(_sigmas(scheduler))


def _sigmas(scheduler: Any) -> torch.Tensor:
    return scheduler.sigmas.double().cpu()
