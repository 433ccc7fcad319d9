"""From gradients of images, which are ready, to the gradient of an update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from accelerate import Accelerator

from ..batches import TrainingBatch
from ..losses import LossOutput
from ..policy_gradient import RatioGradient
from .memory import ImageGradients


class Trained(Protocol):
    """A module with trained weights."""

    def named_parameters(self) -> Iterable[tuple[str, torch.nn.Parameter]]:
        """Yield its weights with their names."""


def loss_at_ratio_one(algorithm: RatioGradient, batch: TrainingBatch) -> tuple[LossOutput, torch.Tensor]:
    """
    Return the loss of a batch `(b,)` at the policy that sampled it, and its slope along the log-ratio of each image `(b,)`.

    A loss is a mean over pairs of an image and a step, and all steps of an image have the same ratio and advantage: so they have
    the same slope, and one of them is returned.
    """
    num_steps = batch.steps.shape[1]
    advantages = batch.rollout.weights[batch.images].repeat(num_steps)
    log_ratio = torch.zeros(len(advantages), requires_grad=True)
    output = algorithm.ratio_loss(log_ratio, advantages)
    (slopes,) = torch.autograd.grad(output.loss, log_ratio)
    return output, slopes[: len(batch.images)]


def add_gradient(
    denoiser: Trained, gradients: ImageGradients, images: torch.Tensor, weights: torch.Tensor, accelerator: Accelerator
) -> None:
    """
    Add the weighted gradients of some images to those of the trained weights.

    With the last batch of an update, processes average what they have, once.

    Args:
        denoiser ([`Trained`]):
            The trained module itself.
        gradients ([`ImageGradients`]):
            The gradients of the rollout's images.
        images, weights (`torch.Tensor` of shape `(b,)`):
            The images that count here, and their weights.
        accelerator (`Accelerator`):
            Knows the last batch of an update, and the other processes.
    """
    parameters = dict(denoiser.named_parameters())
    for name, value in gradients.weighted(weights, images).items():
        parameter = parameters[name]
        own = value.to(parameter)
        parameter.grad = own if parameter.grad is None else parameter.grad.add_(own)
    if accelerator.num_processes > 1 and accelerator.sync_gradients:
        average_gradients([parameters[name] for name in gradients.by_weight], accelerator)


def average_gradients(parameters: Sequence[torch.nn.Parameter], accelerator: Accelerator) -> None:
    """Average the gradients of parameters over processes, all in one message."""
    together = torch.cat([torch.as_tensor(parameter.grad).flatten() for parameter in parameters])
    average = accelerator.reduce(together, reduction="mean")
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, average.split(sizes), strict=True):
        parameter.grad = part.view_as(parameter)
