"""From recorded steps to a loss: replay them, ask the algorithm, and hold the policy near its reference."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from accelerate import Accelerator

from .algorithms import Algorithm
from .denoiser import TrainedDenoiser
from .losses import LossOutput
from .policy import LogProbPipeline, kl_divergence
from .rollout import Rollout


class Learner:
    """
    Args:
        policy ([`LogProbPipeline`]):
            Replays.
        algorithm ([`Algorithm`]):
            Says what is replayed, and the loss.
        denoiser ([`TrainedDenoiser`]):
            Lends the reference.
        beta (`float`):
            Weight of KL(policy || reference) in the loss.
        accelerator (`Accelerator`):
            Of the trainer, for its precision.
    """

    def __init__(
        self,
        policy: LogProbPipeline,
        algorithm: Algorithm[Any, Any],
        denoiser: TrainedDenoiser,
        beta: float,
        accelerator: Accelerator,
    ):
        self.policy = policy
        self.algorithm = algorithm
        self.denoiser = denoiser
        self.beta = beta
        self.accelerator = accelerator

    def loss(
        self,
        model: torch.nn.Module,
        rollout: Rollout[Any],
        images: torch.Tensor,
        steps: torch.Tensor,
        noise: torch.Generator,
    ) -> LossOutput:
        """
        Return the loss of `images` `(N,)` at `steps` `(N,)`.

        Args:
            model (`torch.nn.Module`):
                The denoiser as the accelerator prepared it.
            rollout ([`Rollout`]):
                Where the images are from.
            images, steps (`torch.Tensor` of shape `(N,)`, int64):
                What to learn from.
            noise (`torch.Generator`):
                Of what the algorithm draws.
        """
        minibatch = self.algorithm.minibatch(rollout, images, steps, noise).to(self.policy.pipeline.device)
        predict = partial(self.policy.predict, rollout.memory.conditioning, minibatch.latents, images, steps)
        prediction = predict(model)
        output = self.algorithm.loss(minibatch, prediction)
        if not self.beta:
            return output
        with torch.no_grad(), self.accelerator.autocast(), self.denoiser.reference() as reference:
            expected = predict(reference)
        kl = kl_divergence(self.policy.table, steps, prediction, expected).mean()
        return LossOutput(output.loss + self.beta * kl, {**output.metrics, "kl": kl.detach()})
