"""Losses on one batch of denoising steps. Pure functions; N is the number of steps, each of some image."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LossOutput:
    """
    A loss to minimise, with metrics to log.

    Parameters:
        loss (`torch.Tensor` of shape `()`):
            Carries the gradient.
        metrics (`dict[str, torch.Tensor]`):
            Detached scalars, by log key.
    """

    loss: torch.Tensor
    metrics: dict[str, torch.Tensor]


def clipped_surrogate_loss(log_ratio: torch.Tensor, advantages: torch.Tensor, clip_range: float) -> LossOutput:
    """
    PPO's clipped surrogate (Schulman et al., 2017, eq. 7), negated: the DDPO-IS loss (Black et al., 2023, eq. 4).

    Args:
        log_ratio (`torch.Tensor` of shape `(N,)`):
            log p_new - log p_old in nats per latent element; carries the gradient.
        advantages (`torch.Tensor` of shape `(N,)`):
            Advantage of the image that each transition belongs to.
        clip_range (`float`):
            Half-width of the interval around 1 outside which the ratio earns nothing more.
    """
    ratio = log_ratio.exp()
    clipped_ratio = ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = torch.maximum(-advantages * ratio, -advantages * clipped_ratio).mean()
    with torch.no_grad():
        clipfrac = ((ratio - 1).abs() > clip_range).float().mean()
    return LossOutput(loss, {**_ratio_metrics(log_ratio), "clipfrac": clipfrac})


def score_function_loss(log_ratio: torch.Tensor, advantages: torch.Tensor) -> LossOutput:
    """
    REINFORCE (Williams, 1992), negated: the DDPO-SF loss (Black et al., 2023, section 4.3).

    The gradient is that of -mean(advantages * log p), because log p_old is a constant. It is the policy gradient only
    where the policy is still the one that sampled: one update a rollout. Shapes as in [`clipped_surrogate_loss`].
    """
    return LossOutput(-(advantages * log_ratio).mean(), _ratio_metrics(log_ratio))


def weighted_denoising_loss(prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> LossOutput:
    """
    Reward-weighted regression's loss, mean(w * |prediction - target|^2) (Lee et al., 2023; Black et al., 2023, eq. 3).

    Args:
        prediction (`torch.Tensor` of shape `(N, ...)`):
            The guided model output for noised images; carries the gradient.
        target (`torch.Tensor` of shape `(N, ...)`):
            The model output that would be right (for epsilon prediction, the noise).
        weights (`torch.Tensor` of shape `(N,)`):
            Weight of the image that each belongs to; 1 on average.
    """
    squares = (prediction.float() - target).square().flatten(1).mean(1)
    return LossOutput((weights * squares).mean(), {"denoising_loss": squares.detach().mean()})


def _ratio_metrics(log_ratio: torch.Tensor) -> dict[str, torch.Tensor]:
    """How far the policy is from the one that sampled."""
    log_ratio = log_ratio.detach()
    return {
        "approx_kl": (torch.expm1(log_ratio) - log_ratio).mean(),  # k3, http://joschu.net/blog/kl-approx.html
        "ratio": log_ratio.exp().mean(),
    }
