"""The forward process at the steps of a sampler, on which denoisers are trained; regressions use it too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler

from ...errors import PipelineError
from .gaussian import column


@dataclass(frozen=True)
class NoisingTable:
    """
    latents = signal * denoised + noise * epsilon before each of T steps, and the target of the model output there.

    Parameters:
        signal, noise (`torch.Tensor` of shape `(T,)`, float64):
            Shares of the final latents and of the noise in the latents before the step.
        target_denoised, target_noise (`torch.Tensor` of shape `(T,)`, float64):
            Shares of both in the model output that the denoising loss asks for.
    """

    signal: torch.Tensor
    noise: torch.Tensor
    target_denoised: torch.Tensor
    target_noise: torch.Tensor

    @property
    def flow_time(self) -> torch.Tensor:
        """Share of the noise in the latents, noise / (signal + noise), `(T,)`: the time of flow matching, in [0, 1]."""
        return self.noise / (self.signal + self.noise)

    @property
    def denoised_coef(self) -> torch.Tensor:
        """
        How far x_0 moves with the model output, |d denoised / d output|, `(T,)`: noise / signal for epsilon prediction, noise for
        v and flow prediction, 1 where x_0 itself is predicted.
        """
        return (self.noise / (self.noise * self.target_denoised - self.signal * self.target_noise)).abs()

    def starting_at(self, first: int) -> NoisingTable:
        """Leave out the steps before `first`."""
        tables = (self.signal, self.noise, self.target_denoised, self.target_noise)
        return NoisingTable(*(table[first:] for table in tables))

    def noised(self, steps: torch.Tensor, denoised: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
        """Return final latents `(N, ...)` as they would be before `steps` `(N,)`, for noise `(N, ...)`, in float32."""
        return column(self.signal, steps, denoised) * denoised + column(self.noise, steps, denoised) * epsilon

    def target(self, steps: torch.Tensor, denoised: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
        """Return the target of the model output for noised latents, `(N, ...)`, float32."""
        return (
            column(self.target_denoised, steps, denoised) * denoised
            + column(self.target_noise, steps, denoised) * epsilon
        )


def ddim_noising(scheduler: DDIMScheduler) -> NoisingTable:
    """
    Tabulate the variance-preserving forward process (Ho et al., 2020, eq. 4) at a scheduler's timesteps.

    Args:
        scheduler (`DDIMScheduler`):
            A scheduler after `set_timesteps`.
    """
    return variance_preserving(
        scheduler.alphas_cumprod.double()[scheduler.timesteps.long().cpu()], scheduler.config.prediction_type
    )


def variance_preserving(alpha: torch.Tensor, prediction_type: str) -> NoisingTable:
    """
    Tabulate the variance-preserving forward process.

    Args:
        alpha (`torch.Tensor` of shape `(T,)`, float64):
            Share of the image in the variance of the latents before each step.
        prediction_type (`str`):
            The denoiser's output: `"epsilon"`, `"v_prediction"` or `"sample"`.

    Raises:
        [`PipelineError`]: it predicts something else.
    """
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    targets = {
        "epsilon": (zero, one),
        "v_prediction": (-noise, signal),  # Salimans & Ho, 2022, appendix D
        "sample": (one, zero),
    }
    if prediction_type not in targets:
        raise PipelineError(f"The scheduler's prediction_type is {prediction_type!r}; known: {', '.join(targets)}.")
    return NoisingTable(signal, noise, *targets[prediction_type])
