"""Flow-DPPO: a mask by the divergence of the two policies in place of a clipped ratio (arXiv:2606.11025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..losses import LossOutput, masked_surrogate_loss
from ..minibatch import Transitions
from ..policy_gradient import PolicyGradient


@dataclass(frozen=True)
class DivergenceMasked(PolicyGradient):
    """
    The importance ratio without clipping; steps that have moved too far already, and would move on, are left out.

    Parameters:
        kl_threshold (`float`, *optional*, defaults to 1e-5):
            KL divergence that is too far, in nats per latent element.
    """

    name: ClassVar[str] = "flow_dppo"

    kl_threshold: float = 1e-5

    def loss(self, minibatch: Transitions, prediction: torch.Tensor) -> LossOutput:
        """See [`masked_surrogate_loss`]."""
        terms = minibatch.ratio_terms(prediction)
        return masked_surrogate_loss(terms.log_ratio, terms.kl, minibatch.advantages, self.kl_threshold)
