"""
Flow matching's denoising steps with noise, as tables.

latents = (1 - sigma) * denoised + sigma * noise, and the model output v predicts noise - denoised. All functions take
`sigmas` `(T + 1,)`, float64, falling; step i goes from sigmas[i] to sigmas[i + 1].
"""

from __future__ import annotations

import math

import torch

from .gaussian import TransitionTable
from .noising import NoisingTable


def ode_table(sigmas: torch.Tensor) -> TransitionTable:
    """Tabulate Euler's steps of the probability flow, latents + v * dt: deterministic, what stock pipelines do."""
    return TransitionTable(torch.ones_like(sigmas[1:]), sigmas.diff(), torch.zeros_like(sigmas[1:]))


def flow_sde_table(sigmas: torch.Tensor, noise_level: float) -> TransitionTable:
    """
    Tabulate Flow-GRPO's SDE (Liu et al., 2025, eqs. 8 and 9), whose noise is noise_level * sqrt(sigma / (1 - sigma)).

    At sigma = 1, where that is infinite, the denominator is the next step's, as in the authors' code.
    """
    sigma, dt = sigmas[:-1], sigmas.diff()
    finite = torch.where(sigma > 1 - 1e-4, sigmas[1], sigma)
    variance = noise_level**2 * sigma / (1 - finite)
    return TransitionTable(
        latents_coef=1 + variance * dt / (2 * sigma),
        output_coef=(1 + variance * (1 - sigma) / (2 * sigma)) * dt,
        std=(-variance * dt).sqrt(),
    )


def dance_sde_table(sigmas: torch.Tensor, noise_level: float) -> TransitionTable:
    """
    Tabulate DanceGRPO's SDE (Xue et al., 2025, eq. 8), whose noise is the same at all noise levels.

    mean = latents + v * dt - noise_level^2 / 2 * score * dt, where score = -(latents - (1 - sigma) * denoised) / sigma^2
    = -(latents + (1 - sigma) * v) / sigma.
    """
    sigma, dt = sigmas[:-1], sigmas.diff()
    drift = noise_level**2 * dt / (2 * sigma)
    return TransitionTable(1 + drift, dt + drift * (1 - sigma), noise_level * (-dt).sqrt())


def cps_table(sigmas: torch.Tensor, noise_level: float) -> TransitionTable:
    """
    Tabulate coefficients-preserving sampling (Wang & Yu, 2025): each step adds as much noise as it removes.

    next_latents = (1 - next_sigma) * denoised + sqrt(next_sigma^2 - std^2) * predicted_noise + std * noise, where
    std = next_sigma * sin(noise_level * pi / 2). With noise_level 1 it is diffusers' `stochastic_sampling`. The last step,
    to sigma = 0, is deterministic.
    """
    angle = noise_level * math.pi / 2
    return _preserving(sigmas, kept=sigmas[1:] * math.cos(angle), std=sigmas[1:] * math.sin(angle))


def precise_table(sigmas: torch.Tensor, noise_level: float) -> TransitionTable:
    """
    Tabulate the sampler of arXiv:2605.23522, which preserves coefficients like CPS, and replaces less noise in shorter steps.

    Of the noise there is, the share q^(a^2 / 2) is kept, where a = noise_level and q = next_sigma (1 - sigma) / (sigma (1 -
    next_sigma)); std = next_sigma * sqrt(1 - q^(a^2)). The authors use a = 1.5. The last step is deterministic.
    """
    sigma, next_sigma = sigmas[:-1], sigmas[1:]
    kept_variance = (next_sigma * (1 - sigma) / (sigma * (1 - next_sigma))) ** noise_level**2
    return _preserving(sigmas, kept=next_sigma * kept_variance.sqrt(), std=next_sigma * (1 - kept_variance).sqrt())


def _preserving(sigmas: torch.Tensor, kept: torch.Tensor, std: torch.Tensor) -> TransitionTable:
    """Tabulate next_latents = (1 - next_sigma) * denoised + kept * predicted_noise + std * noise."""
    sigma, next_sigma = sigmas[:-1], sigmas[1:]
    return TransitionTable(
        latents_coef=1 - next_sigma + kept,
        output_coef=kept * (1 - sigma) - (1 - next_sigma) * sigma,
        std=std,
    )


def windowed(table: TransitionTable, sigmas: torch.Tensor, first: int, last: int) -> TransitionTable:
    """Keep the steps from `first` to `last` of `table`, and make the others deterministic (MixGRPO, Li et al., 2025)."""
    steps = torch.arange(table.num_steps)
    noisy, still = (first <= steps) & (steps <= last), ode_table(sigmas)
    return TransitionTable(
        torch.where(noisy, table.latents_coef, still.latents_coef),
        torch.where(noisy, table.output_coef, still.output_coef),
        torch.where(noisy, table.std, still.std),
    )


def flow_noising(sigmas: torch.Tensor) -> NoisingTable:
    """Tabulate the straight path between image and noise (Lipman et al., 2023; Liu et al., 2023)."""
    sigma = sigmas[:-1]
    return NoisingTable(1 - sigma, sigma, -torch.ones_like(sigma), torch.ones_like(sigma))
