"""DDIM with noise, as a table of transitions."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler

from ...errors import PipelineError
from .gaussian import TransitionTable


def ddim_table(scheduler: DDIMScheduler, eta: float) -> TransitionTable:
    """
    Tabulate DDIM with noise (Song et al., 2021, eqs. 12 and 16), the sampler of the DDPO paper.

    Args:
        scheduler (`DDIMScheduler`):
            A scheduler after `set_timesteps`.
        eta (`float`):
            Weight of the noise: 1 is DDPM; 0 is deterministic DDIM, which has no log-probabilities.
    """
    alphas = scheduler.alphas_cumprod.double()
    timesteps = scheduler.timesteps.long().cpu()
    # The timestep that diffusers' step moves to. With spacing "linspace" it need not be the next of the list.
    next_timesteps = timesteps - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    alpha = alphas[timesteps]
    alpha_next = torch.where(
        next_timesteps >= 0, alphas[next_timesteps.clamp(min=0)], scheduler.final_alpha_cumprod.double()
    )
    # eq. 16
    std = eta * ((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)).clamp(min=0).sqrt()
    # eq. 12, with x_0 and epsilon as linear functions of the latents and the model output
    to_denoised, to_noise = _prediction(scheduler.config.prediction_type, alpha)
    keep, direction = alpha_next.sqrt(), (1 - alpha_next - std.square()).clamp(min=0).sqrt()
    return TransitionTable(
        latents_coef=keep * to_denoised[0] + direction * to_noise[0],
        output_coef=keep * to_denoised[1] + direction * to_noise[1],
        std=std,
    )


def _prediction(
    prediction_type: str, alpha: torch.Tensor
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Return the coefficients of (latents, model_output) that give x_0, and those that give epsilon; each `(T,)`."""
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    match prediction_type:
        case "epsilon":
            return (1 / signal, -noise / signal), (zero, one)
        case "v_prediction":  # Salimans & Ho, 2022, appendix D
            return (signal, -noise), (noise, signal)
        case "sample":
            return (zero, one), (1 / noise, -signal / noise)
        case other:
            raise PipelineError(
                f"The scheduler's prediction_type is {other!r}; DDIM needs 'epsilon', 'v_prediction' or 'sample'."
            )
