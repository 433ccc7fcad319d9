"""GRPO-Guard: ratios that are on one scale at every denoising step (arXiv:2510.22319)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import torch

from ...options import CLIP_RANGES
from ..losses import LossOutput, clipped_surrogate_loss
from ..minibatch import Transitions
from ..policy_gradient import PolicyGradient

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GuardedImportanceSampling(PolicyGradient):
    """
    DDPO-IS with RatioNorm, and with steps that pull equally hard.

    The log-ratio of two Gaussians is z * shift - shift^2 / 2: its mean is below 0, so that it is hardly ever clipped from above,
    and its scale is that of 1 / std, so that some steps are clipped and others never. RatioNorm is std * mean(z * shift), and
    each step's loss is divided by |output_coef|, which is what its gradient grows with.

    Parameters:
        clip_range (`float`, *optional*, defaults to 2e-6):
            Half-width of the interval that the normalised ratio is clipped to.
    """

    name: ClassVar[str] = "grpo_guard"
    clips_ratio: ClassVar[bool] = True

    clip_range: float = CLIP_RANGES["grpo_guard"]

    def __post_init__(self) -> None:
        if self.clip_range >= CLIP_RANGES["ddpo_is"]:
            logger.warning(
                "clip_range is %g, and the ratios of %r are normalised: so wide an interval clips hardly any. Its authors "
                "use %g, which is the default.",
                self.clip_range,
                self.name,
                CLIP_RANGES["grpo_guard"],
            )

    def loss(self, minibatch: Transitions, prediction: torch.Tensor) -> LossOutput:
        """See [`clipped_surrogate_loss`]."""
        weights = 1 / minibatch.at_steps(minibatch.table.output_coef.abs())
        return clipped_surrogate_loss(ratio_norm(minibatch, prediction), minibatch.advantages, self.clip_range, weights)


def ratio_norm(minibatch: Transitions, prediction: torch.Tensor) -> torch.Tensor:
    """Return the normalised log-ratio std * mean(z * shift) of each transition `(N,)`; see [`ratio_terms`]."""
    terms = minibatch.ratio_terms(prediction)
    return minibatch.at_steps(minibatch.table.std) * (terms.log_ratio + terms.kl)
