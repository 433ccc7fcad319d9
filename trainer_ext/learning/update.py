"""From recorded steps to gradients: replay them, compute the algorithm's loss, and add the KL term to the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from ddpo_plugins.names import STEPS

from ..policy.pipeline import LogProbPipeline
from ..policy.transitions.gaussian import kl_divergence
from .algorithm import BoundAlgorithm
from .losses import LossOutput
from .order import seeded_generator, shuffled_steps
from .rollout import Rollout


@dataclass(frozen=True)
class TrainingBatch:
    """
    Images of a rollout and the denoising steps to train on.

    Parameters:
        rollout ([`Rollout`]):
            The rollout that the images belong to.
        images (`torch.Tensor` of shape `(b,)`, int64):
            Positions in the rollout.
        steps (`torch.Tensor` of shape `(b, K)`, int64):
            K steps for each image.
        noise (`torch.Generator`):
            Source of the noise that the algorithm draws.
    """

    rollout: Rollout[Any]
    images: torch.Tensor
    steps: torch.Tensor
    noise: torch.Generator


def training_batch(
    algorithm: BoundAlgorithm[Any, Any],
    rollout: Rollout[Any],
    positions: torch.Tensor,
    timestep_fraction: float,
    seed: int,
    process: int,
) -> TrainingBatch:
    """
    Return the images and steps at some positions in the order of training.

    Args:
        algorithm ([`BoundAlgorithm`]):
            Orders the images, and says which steps can be trained.
        rollout ([`Rollout`]):
            This process's B images.
        positions (`torch.Tensor` of shape `(b,)`, int64):
            Counted through all passes over the rollout, all in one pass: pass p has positions p * B to (p + 1) * B - 1.
        timestep_fraction (`float`):
            Share of the steps to train in a pass.
        seed, process (`int`):
            The run's seed and the number of this process.
    """
    inner_epoch = int(positions[0]) // len(rollout)
    generator = seeded_generator(seed, rollout.index, inner_epoch, process)
    images = algorithm.order(rollout, generator)
    steps = shuffled_steps(algorithm.trained_steps, len(rollout), timestep_fraction, generator)
    here = positions % len(rollout)
    noise = seeded_generator(seed, rollout.index, int(positions[0]), process, 1)
    return TrainingBatch(rollout, images[here], steps[here], noise)


class LendsReference(Protocol):
    """A trained module that remembers its state before training."""

    def reference(self) -> AbstractContextManager[Callable[..., Any]]:
        """Lend the denoiser in its state before training."""


@dataclass(frozen=True)
class GradientAccumulator:
    """
    Adds the gradient of a batch to the trained parameters, one step of each image at a time.

    Parameters:
        policy ([`LogProbPipeline`]):
            Replays recorded steps.
        algorithm ([`BoundAlgorithm`]):
            Chooses what to replay, and defines the loss.
        denoiser ([`LendsReference`]):
            The trained module; lends the reference of the KL term.
        beta (`float`):
            Weight of KL(policy || reference) in the loss.
        accelerator (`Accelerator`):
            The trainer's own: precision, and when processes exchange gradients.
    """

    policy: LogProbPipeline
    algorithm: BoundAlgorithm[Any, Any]
    denoiser: LendsReference
    beta: float
    accelerator: Accelerator

    def accumulate(
        self,
        model: torch.nn.Module,
        batch: TrainingBatch,
        accumulation_steps: int,
        before_chunk: Callable[[], None],
        on_metrics: Callable[[Mapping[str, float | torch.Tensor]], None],
    ) -> torch.Tensor:
        """
        Backpropagate the mean loss over the K steps, divided by `accumulation_steps`.

        Args:
            model (`torch.nn.Module`):
                The denoiser as the accelerator prepared it.
            batch ([`TrainingBatch`]):
                The images and steps to learn from.
            accumulation_steps (`int`):
                Batches in one optimizer update.
            before_chunk (`Callable[[], None]`):
                Called before each step; may raise to stop there.
            on_metrics (`Callable[[Mapping[str, torch.Tensor]], None]`):
                Called with the metrics of each step's loss, and with the figures of each transition by its denoising step.

        Returns:
            `torch.Tensor` of shape `()`: the mean loss over the steps.
        """
        num_chunks = batch.steps.shape[1]
        total = torch.zeros((), device=self.accelerator.device)
        for chunk in range(num_chunks):
            before_chunk()
            # DDP averages gradients in the backward pass; once, in the last, is enough
            sync = contextlib.nullcontext() if chunk == num_chunks - 1 else self.accelerator.no_sync(model)
            with sync:
                output = self.loss(model, batch.rollout, batch.images, batch.steps[:, chunk], batch.noise)
                loss = output.loss / num_chunks
                self.accelerator.backward(loss / accumulation_steps)
            total += loss.detach()
            on_metrics(output.metrics)
            for measured in step_metrics(output.by_transition, batch.steps[:, chunk]):
                on_metrics(measured)
        return total

    def loss(
        self,
        model: torch.nn.Module,
        rollout: Rollout[Any],
        images: torch.Tensor,
        steps: torch.Tensor,
        noise: torch.Generator,
    ) -> LossOutput:
        """Return the loss of `images` `(N,)` of a rollout at `steps` `(N,)`; the algorithm draws from `noise`."""
        minibatch = self.algorithm.minibatch(rollout, images, steps, noise).to(self.policy.pipeline.device)
        predict = partial(self.policy.predict, rollout.data.conditioning, minibatch.latents, images, steps)
        prediction = predict(model)
        output = self.algorithm.loss(minibatch, prediction)
        if not self.beta:
            return output
        with torch.no_grad(), self.accelerator.autocast(), self.denoiser.reference() as reference:
            expected = predict(reference)
        kls = kl_divergence(self.policy.table, steps, prediction, expected)
        kl, by_transition = kls.mean(), {**output.by_transition, "kl": kls.detach()}
        return LossOutput(output.loss + self.beta * kl, {**output.metrics, "kl": kl.detach()}, by_transition)


def step_metrics(values: Mapping[str, torch.Tensor], steps: torch.Tensor) -> Iterator[dict[str, float]]:
    """Yield the values `(N,)` of each transition by the names under which those of its step `(N,)` are recorded."""
    columns = {name: column.tolist() for name, column in values.items()}
    for index, step in enumerate(steps.tolist() if columns else ()):
        yield {f"{STEPS}{step}/{name}": column[index] for name, column in columns.items()}
