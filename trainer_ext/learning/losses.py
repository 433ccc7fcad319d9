"""Losses on one batch of denoising steps. Pure functions; N is the number of steps, each of some image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
        by_transition (`Mapping[str, torch.Tensor]` of shape `(N,)`, *optional*):
            Detached values of each denoising step, by name, which are recorded as means over images and updates.
    """

    loss: torch.Tensor
    metrics: dict[str, torch.Tensor]
    by_transition: Mapping[str, torch.Tensor] = field(default_factory=dict)


def clipped_surrogate_loss(
    log_ratio: torch.Tensor,
    advantages: torch.Tensor,
    clip_range: float,
    step_weights: torch.Tensor | float = 1.0,
) -> LossOutput:
    """
    PPO's clipped surrogate (Schulman et al., 2017, eq. 7), negated: the DDPO-IS loss (Black et al., 2023, eq. 4).

    Args:
        log_ratio (`torch.Tensor` of shape `(N,)`):
            log p_new - log p_old in nats per latent element; carries the gradient.
        advantages (`torch.Tensor` of shape `(N,)`):
            Advantage of the image that each transition belongs to.
        clip_range (`float`):
            Half-width of the interval around 1 outside which the ratio earns nothing more.
        step_weights (`torch.Tensor` of shape `(N,)`, *optional*, defaults to 1):
            Weight of each transition's loss.
    """
    ratio = log_ratio.exp()
    clipped_ratio = ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = (step_weights * torch.maximum(-advantages * ratio, -advantages * clipped_ratio)).mean()
    with torch.no_grad():
        clipped = ((ratio - 1).abs() > clip_range).float()
    return _with_means(loss, {**_ratio_measures(log_ratio), "clipfrac": clipped})


def masked_surrogate_loss(
    log_ratio: torch.Tensor, kl: torch.Tensor, advantages: torch.Tensor, kl_threshold: float
) -> LossOutput:
    """
    Flow-DPPO's surrogate (arXiv:2606.11025): the ratio is never clipped, but some transitions are left out.

    They are those whose policy is already `kl_threshold` or more from the one that sampled, and that would move on: a ratio above
    1 with a positive advantage, or below 1 with a negative one. Shapes as in [`clipped_surrogate_loss`].

    Args:
        kl (`torch.Tensor` of shape `(N,)`):
            KL divergence of the step's Gaussian from the one that sampled, in nats per latent element.
    """
    left_out = ((kl >= kl_threshold) & (log_ratio * advantages > 0)).detach()
    loss = (-advantages * log_ratio.exp() * ~left_out).mean()
    return _with_means(loss, {**_ratio_measures(log_ratio), "clipfrac": left_out.float()})


def score_function_loss(log_ratio: torch.Tensor, advantages: torch.Tensor) -> LossOutput:
    """
    REINFORCE (Williams, 1992), negated: the DDPO-SF loss (Black et al., 2023, section 4.3).

    The gradient is that of -mean(advantages * log p), because log p_old is a constant. It is the policy gradient only
    where the policy is still the one that sampled: one update per rollout. Shapes as in [`clipped_surrogate_loss`].
    """
    return _with_means(-(advantages * log_ratio).mean(), _ratio_measures(log_ratio))


def weighted_denoising_loss(prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> LossOutput:
    """
    Reward-weighted regression's loss, mean(w * |prediction - target|^2) (Lee et al., 2023; Black et al., 2023, eq. 3).

    Args:
        prediction (`torch.Tensor` of shape `(N, ...)`):
            The guided model output for noised images; carries the gradient.
        target (`torch.Tensor` of shape `(N, ...)`):
            The model output that the loss asks for (for epsilon prediction, the noise).
        weights (`torch.Tensor` of shape `(N,)`):
            Weight of each image in the loss; 1 on average.
    """
    squares = _mean_squares(prediction, target)
    return LossOutput((weights * squares).mean(), {"denoising_loss": squares.detach().mean()})


SCALE_FLOOR = 1e-5  #: below which the error of a prediction is no scale to divide by


def scaled_squares(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """
    Return mean(|p - y|^2) / mean(|p - y|) of each prediction `(N,)`, where no gradient passes the divisor.

    So predictions that are far off pull no harder than others (DiffusionNFT, arXiv:2509.16117).
    """
    error = (prediction.to(target) - target).flatten(1)
    return error.square().mean(1) / error.detach().abs().mean(1).clamp(min=SCALE_FLOOR)


def signed_matching_loss(
    prediction: torch.Tensor, target: torch.Tensor, signs: torch.Tensor, step_weights: torch.Tensor
) -> LossOutput:
    """
    Advantage-weighted matching (AWM, arXiv:2509.25050) with scaled errors: towards good images, away from bad ones.

    Args:
        prediction (`torch.Tensor` of shape `(N, ...)`):
            The guided model output for noised images; carries the gradient.
        target (`torch.Tensor` of shape `(N, ...)`):
            The model output that the denoising loss asks for.
        signs (`torch.Tensor` of shape `(N,)`):
            Advantages, cut to [-1, 1].
        step_weights (`torch.Tensor` of shape `(N,)`):
            Weight of each step's noise level.
    """
    losses = signs * step_weights * scaled_squares(prediction, target)
    return LossOutput(losses.mean(), {"denoising_loss": _mean_squares(prediction, target).detach().mean()})


def negative_aware_loss(
    prediction: torch.Tensor,
    old_output: torch.Tensor,
    target: torch.Tensor,
    signs: torch.Tensor,
    step_weights: torch.Tensor,
    strength: float,
) -> LossOutput:
    """
    DiffusionNFT (arXiv:2509.16117): a good image pulls the prediction, a bad one its mirror image in the old prediction.

    With b = strength and the prediction p: positive = (1 - b) old + b p is matched with weight (1 + sign) / 2, and negative =
    (1 + b) old - b p with weight (1 - sign) / 2. At p = old the gradient is exactly that of [`signed_matching_loss`]. Shapes as
    there.

    Args:
        old_output (`torch.Tensor` of shape `(N, ...)`):
            What the old policy predicts.
        strength (`float`):
            b: how far the two are from the old prediction.
    """
    old, new, share = old_output.to(target), prediction.to(target), (1 + signs) / 2
    positive, negative = (1 - strength) * old + strength * new, (1 + strength) * old - strength * new
    matched = share * scaled_squares(positive, target) + (1 - share) * scaled_squares(negative, target)
    metrics = {
        "denoising_loss": _mean_squares(new, target).detach().mean(),
        "old_distance": _mean_squares(new, old).detach().mean(),
    }
    return LossOutput((step_weights * matched).mean() / strength, metrics)


def _mean_squares(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (prediction.to(target) - target).square().flatten(1).mean(1)


def _ratio_measures(log_ratio: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return measures `(N,)` of the distance between the policy and the one that sampled."""
    log_ratio = log_ratio.detach()
    return {
        "approx_kl": torch.expm1(log_ratio) - log_ratio,  # k3, http://joschu.net/blog/kl-approx.html
        "ratio": log_ratio.exp(),
    }


def _with_means(loss: torch.Tensor, values: Mapping[str, torch.Tensor]) -> LossOutput:
    return LossOutput(loss, {name: value.mean() for name, value in values.items()}, values)
