"""The inputs of a loss: recorded transitions, or final latents with new noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from ..policy.transfer import to_device
from ..policy.transitions.gaussian import RatioTerms, TransitionTable, ratio_terms
from ..policy.transitions.noising import NoisingTable


@dataclass(frozen=True)
class Transitions:
    """
    N recorded denoising steps.

    Parameters:
        table ([`TransitionTable`]):
            The denoising steps of the rollout.
        steps (`torch.Tensor` of shape `(N,)`, int64):
            The denoising step of each transition.
        latents, old_outputs, next_latents (`torch.Tensor` of shape `(N, ...)`):
            State, guided prediction from which the step was sampled, and state after the step.
        advantages (`torch.Tensor` of shape `(N,)`):
            Advantage of the image that each step belongs to.
    """

    table: TransitionTable
    steps: torch.Tensor
    latents: torch.Tensor
    old_outputs: torch.Tensor
    next_latents: torch.Tensor
    advantages: torch.Tensor

    def to(self, device: torch.device) -> Transitions:
        """Move the tensors."""
        moved = (self.latents, self.old_outputs, self.next_latents, self.advantages)
        return Transitions(self.table, self.steps, *to_device(moved, device))

    def ratio_terms(self, prediction: torch.Tensor) -> RatioTerms:
        """Compare the policy that predicts `prediction` `(N, ...)` with the one that sampled."""
        return ratio_terms(self.table, self.steps, self.latents, prediction, self.old_outputs, self.next_latents)

    def at_steps(self, table: torch.Tensor) -> torch.Tensor:
        """Return the entries of `table` `(T,)` at the steps, `(N,)`."""
        return _entries(table, self.steps, self.advantages)


@dataclass(frozen=True)
class NoisedLatents:
    """
    The final latents of N images, with new noise.

    Parameters:
        noising ([`NoisingTable`]):
            The forward process at the sampler's steps.
        steps (`torch.Tensor` of shape `(N,)`, int64):
            The step whose noise each has.
        latents (`torch.Tensor` of shape `(N, ...)`):
            The noised latents, after the forward process.
        targets (`torch.Tensor` of shape `(N, ...)`):
            The model output that the denoising loss asks for.
        weights (`torch.Tensor` of shape `(N,)`):
            Weight of each image in the loss.
    """

    noising: NoisingTable
    steps: torch.Tensor
    latents: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor

    def to(self, device: torch.device) -> NoisedLatents:
        """Move the tensors."""
        return NoisedLatents(self.noising, self.steps, *to_device((self.latents, self.targets, self.weights), device))

    def at_steps(self, table: torch.Tensor) -> torch.Tensor:
        """Return the entries of `table` `(T,)` at the steps, `(N,)`."""
        return _entries(table, self.steps, self.weights)

    def beside(self, old_outputs: torch.Tensor) -> NoisedBesideOld:
        """Add what the old policy predicts."""
        return NoisedBesideOld(self.noising, self.steps, self.latents, self.targets, self.weights, old_outputs)


@dataclass(frozen=True)
class NoisedBesideOld(NoisedLatents):
    """
    Final latents with new noise, and what an old policy predicts from them.

    Parameters:
        old_outputs (`torch.Tensor` of shape `(N, ...)`):
            Its guided predictions, without gradient.
    """

    old_outputs: torch.Tensor


Batch = TypeVar("Batch", Transitions, NoisedLatents)


def joined(first: Batch, second: Batch) -> Batch:
    """Return the rows of both."""
    rows: dict[str, Any] = {name: torch.cat([value, vars(second)[name]]) for name, value in _tensors(first).items()}
    return replace(first, **rows)


def cut(batch: Batch, size: int) -> tuple[Batch, Batch]:
    """Return the first `size` rows, and the others."""
    each = ({name: value[rows] for name, value in _tensors(batch).items()} for rows in (slice(size), slice(size, None)))
    first, others = (replace(batch, **rows) for rows in each)
    return first, others


def _entries(table: torch.Tensor, steps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the entries of `table` `(T,)` at `steps` `(N,)`, on the device and in the dtype of `like`."""
    return to_device(table[steps.to(table.device)].to(like.dtype), like.device)


def _tensors(batch: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
