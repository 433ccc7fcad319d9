"""Policy-gradient losses on one batch of denoising transitions. Pure functions; N is the number of transitions."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LossOutput:
    """
    A loss to minimise, with what is worth logging about it.

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
        metrics = {
            "approx_kl": (torch.expm1(log_ratio) - log_ratio).mean(),  # k3, http://joschu.net/blog/kl-approx.html
            "clipfrac": ((ratio - 1).abs() > clip_range).float().mean(),
            "ratio": ratio.mean(),
        }
    return LossOutput(loss, metrics)
