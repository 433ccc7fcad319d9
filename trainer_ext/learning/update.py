"""From recorded steps to gradients: replay them, compute the algorithm's loss, and add the KL term to the reference."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from ddpo_plugins.names import STEPS

from ..loop.metrics import RunMetrics
from ..policy.pipeline import LogProbPipeline
from .algorithm import BoundAlgorithm
from .batches import ForwardPass, TrainingBatch, forward_passes, pairs_at_once
from .fused.memory import ImageGradients
from .fused.ready import Trained, add_gradient, loss_at_ratio_one
from .losses import LossOutput
from .policy_gradient import RatioGradient
from .rollout import Rollout


class LendsEarlier(Protocol):
    """The trained weights, and earlier ones."""

    @property
    def denoiser(self) -> Trained:
        """The trained module."""

    def reference(self) -> AbstractContextManager[Callable[..., Any]]:
        """Lend the denoiser with the weights that the distance in the loss is measured from."""

    def note_distances(self, distances: torch.Tensor) -> None:
        """Note the distances `(N,)` from the reference in a forward pass."""

    def old_policy(self) -> AbstractContextManager[Callable[..., Any]]:
        """Lend the denoiser with the weights of the algorithm's old policy."""


@dataclass(frozen=True)
class GradientAccumulator:
    """
    Adds the gradient of a batch to the trained parameters, some pairs of an image and a step at a time.

    Parameters:
        policy ([`LogProbPipeline`]):
            Replays recorded steps.
        algorithm ([`BoundAlgorithm`]):
            Chooses what to replay, and defines the loss.
        weights ([`LendsEarlier`]):
            The trained module; lends the reference, and the old policy of an algorithm that has one.
        beta (`float`):
            Weight in the loss of the divergence from the reference.
        accelerator (`Accelerator`):
            The trainer's own: precision, and when processes exchange gradients.
        rows_per_forward (`int`, *optional*):
            Rows of a forward pass; see [`pairs_at_once`].
    """

    policy: LogProbPipeline
    algorithm: BoundAlgorithm[Any, Any]
    weights: LendsEarlier
    beta: float
    accelerator: Accelerator
    rows_per_forward: int | None = None

    def accumulate(
        self,
        model: torch.nn.Module,
        batch: TrainingBatch,
        accumulation_steps: int,
        before_pass: Callable[[], None],
        metrics: RunMetrics,
    ) -> torch.Tensor:
        """
        Backpropagate the mean loss over all pairs of an image and a step, divided by `accumulation_steps`.

        Args:
            model (`torch.nn.Module`):
                The denoiser as the accelerator prepared it.
            batch ([`TrainingBatch`]):
                The images and steps to learn from.
            accumulation_steps (`int`):
                Batches in one optimizer update.
            before_pass (`Callable[[], None]`):
                Called before each forward pass; may raise to stop there.
            metrics ([`RunMetrics`]):
                Collects the loss, its metrics, and the figures of each transition by its denoising step.

        Returns:
            `torch.Tensor` of shape `()`: the mean loss.
        """
        gradients, algorithm = batch.rollout.data, self.algorithm.algorithm
        if isinstance(gradients, ImageGradients) and isinstance(algorithm, RatioGradient):
            before_pass()
            output, slopes = loss_at_ratio_one(algorithm, batch)
            add_gradient(self.weights.denoiser, gradients, batch.images, slopes / accumulation_steps, self.accelerator)
            metrics.note({**output.metrics, "loss": output.loss})
            note_transitions(metrics, batch.steps.T.flatten(), output.by_transition)
            return output.loss.detach().to(self.accelerator.device)
        return self._replay(model, batch, accumulation_steps, before_pass, metrics)

    def _replay(
        self,
        model: torch.nn.Module,
        batch: TrainingBatch,
        accumulation_steps: int,
        before_pass: Callable[[], None],
        metrics: RunMetrics,
    ) -> torch.Tensor:
        num_pairs, means = batch.steps.numel(), PairMeans()
        size = pairs_at_once(self.policy, self.rows_per_forward, len(batch.images))
        left = num_pairs
        for chosen in forward_passes(self.algorithm, batch, size):
            before_pass()
            left -= len(chosen.steps)
            # DDP averages gradients in the backward pass; once, in the last, is enough
            with self.accelerator.no_sync(model) if left else contextlib.nullcontext():
                output = self.loss(model, batch.rollout, chosen)
                loss = output.loss / (num_pairs / len(chosen.steps))
                self.accelerator.backward(loss / accumulation_steps)
            means.add({**output.metrics, "loss": output.loss}, len(chosen.steps))
            note_transitions(metrics, chosen.steps, output.by_transition)
        found = means.read()
        metrics.note(found)
        return found["loss"]

    def loss(self, model: torch.nn.Module, rollout: Rollout[Any], chosen: ForwardPass[Any]) -> LossOutput:
        """Return the mean loss of the pairs of a forward pass."""
        minibatch = chosen.minibatch.to(self.policy.device)
        predict = partial(
            self.policy.predict, rollout.data.conditioning, minibatch.latents, chosen.images, chosen.steps
        )
        algorithm = self.algorithm.algorithm
        if algorithm.old_policy is not None:
            minibatch = minibatch.beside(self._predicted(predict, self.weights.old_policy()))
        # before the prediction, whose gradient needs the trained weights to stay as they are
        reference = self._predicted(predict, self.weights.reference()) if self.beta else None
        prediction = predict(model)
        output = algorithm.loss(minibatch, prediction)
        if reference is None:
            return output
        each, name = algorithm.divergence(minibatch, prediction, reference), algorithm.divergence_name
        self.weights.note_distances(each)
        counted = rollout.distance_weights.expand(len(rollout))[chosen.images].to(each)
        by_transition = {**output.by_transition, name: each.detach()}
        metrics = {**output.metrics, name: each.detach().mean()}
        return LossOutput(output.loss + self.beta * (counted * each).mean(), metrics, by_transition)

    @torch.no_grad()
    def _predicted(
        self, predict: Callable[..., torch.Tensor], lent: AbstractContextManager[Callable[..., Any]]
    ) -> torch.Tensor:
        with self.accelerator.autocast(), lent as denoiser:
            return predict(denoiser)


class PairMeans:
    """Means over the pairs of several forward passes, which need not have equally many, of means over each pass."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: Counter[str] = Counter()

    def add(self, means: Mapping[str, torch.Tensor], num_pairs: int) -> None:
        """Add the means of a pass."""
        for name, mean in means.items():
            weighted = torch.as_tensor(mean).detach().float() * num_pairs
            self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted
            self._counts[name] += num_pairs

    def read(self) -> dict[str, torch.Tensor]:
        """Return the means over all passes that have them, as tensors on their device."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}


def note_transitions(metrics: RunMetrics, steps: torch.Tensor, values: Mapping[str, torch.Tensor]) -> None:
    """Note the values `(N,)` of each transition by the names under which those of its step `(N,)` are recorded."""
    for name, column in values.items():
        metrics.note_each([f"{STEPS}{step}/{name}" for step in steps.tolist()], column)
