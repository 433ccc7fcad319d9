"""Steps with noise that are drawn for each rollout (Flow-GRPO-Fast)."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from ..config import DDPOConfig
from ..errors import ConfigError
from ..learning.order import seeded_generator
from ..policy.pipeline import LogProbPipeline
from ..policy.transitions.samplers import FLOW_TABLES

TAG = 2  #: the last number of the generator's seed, which no other has


@dataclass(frozen=True)
class NoiseWindow:
    """
    Draws the steps that have noise in a rollout: the same in all processes, and again when the run is resumed.

    Parameters:
        policy ([`LogProbPipeline`]):
            Samples the rollouts.
        steps (`torch.Tensor` of shape `(S,)`, int64):
            The steps to draw from, successive.
        size (`int`, *optional*):
            Steps in a window; `None` for noise wherever the sampler has it.
        seed (`int`):
            The run's seed.
    """

    policy: LogProbPipeline
    steps: torch.Tensor
    size: int | None
    seed: int

    @classmethod
    def of(cls, args: DDPOConfig, policy: LogProbPipeline, steps: torch.Tensor) -> NoiseWindow:
        """
        Return the windows of a run that begins.

        Raises:
            [`ConfigError`]: its sampler is not one of flow matching, or a window is longer than what it is drawn from.
        """
        size = args.sde_window_size
        if size is not None and policy.sampler not in FLOW_TABLES:
            raise ConfigError(
                f"sde_window_size is {size}, and the sampler {policy.sampler!r}; windows are for the samplers of flow matching: "
                f"{', '.join(FLOW_TABLES)}. Leave it out."
            )
        if size is not None and size > len(steps):
            raise ConfigError(
                f"sde_window_size is {size}, and {len(steps)} denoising steps can be trained; it must be at most that, or left "
                "out."
            )
        return cls(policy, steps, size, args.seed)

    def drawn(self, index: int, size: int) -> tuple[int, int]:
        """Return the first and the last step with noise in the rollout with number `index`."""
        generator = seeded_generator(self.seed, index, 0, 0, TAG)
        start = int(torch.randint(len(self.steps) - size + 1, (), generator=generator))
        return int(self.steps[start]), int(self.steps[start + size - 1])

    def in_rollout(self, index: int) -> AbstractContextManager[None]:
        """Context manager in which the policy samples the rollout with number `index`."""
        if self.size is None:
            return contextlib.nullcontext()
        return self.policy.runner.noise_within(*self.drawn(index, self.size))
