"""How far a model is from the policy that sampled, at recorded steps: before the first update it is nowhere off."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .pipeline import LogProbPipeline
from .recording.trajectory import Trajectory
from .transfer import to_device


def comparable_steps(trajectory: Trajectory) -> torch.Tensor:
    """Return the steps that have a log-probability, or all where none has, int64."""
    steps = trajectory.table.stochastic_steps
    return steps if len(steps) else torch.arange(trajectory.table.num_steps)


@dataclass(frozen=True)
class Replayed:
    """
    Recorded steps to replay in one forward pass.

    Parameters:
        trajectory ([`Trajectory`]):
            The record.
        rows, steps (`torch.Tensor` of shape `(N,)`, int64):
            Image and step of each.
    """

    trajectory: Trajectory
    rows: torch.Tensor
    steps: torch.Tensor

    @classmethod
    def as_sampled(cls, trajectory: Trajectory) -> Replayed:
        """Return the first step that can be compared, of all images, in the batch in which they were sampled."""
        return cls.at_step(trajectory, comparable_steps(trajectory)[0])

    @classmethod
    def at_step(cls, trajectory: Trajectory, step: torch.Tensor) -> Replayed:
        """Return a step `()` of all images, in the batch in which they were sampled."""
        rows = torch.arange(len(trajectory))
        return cls(trajectory, rows, step.expand(len(rows)))

    @classmethod
    def as_trained(cls, trajectory: Trajectory, trained_steps: torch.Tensor, num_pairs: int) -> Replayed:
        """Return as many pairs of an image and a step as a forward pass of training takes; if there are fewer, they repeat."""
        pairs = torch.arange(num_pairs)
        step = trained_steps[pairs.div(len(trajectory), rounding_mode="floor") % len(trained_steps)]
        return cls(trajectory, pairs % len(trajectory), step)

    def deviations(self, policy: LogProbPipeline, model: torch.nn.Module) -> torch.Tensor:
        """
        Return how far `model` is from the policy that sampled `(N,)`, 0 if it predicts the same: the log-ratios.

        Where no step has a log-probability, it is the relative change of the predictions along the recorded ones.
        """
        record, rows, steps = self.trajectory, self.rows, self.steps
        if len(record.table.stochastic_steps):
            return policy.ratio_terms(record, rows, steps, model).log_ratio
        prediction = policy.predict(record.conditioning, record.latents[rows, steps], rows, steps, model).float()
        recorded = to_device(record.model_outputs[rows, steps].float(), prediction.device)
        size = recorded.square().flatten(1).mean(1)
        return ((prediction - recorded) * recorded).flatten(1).mean(1) / size
