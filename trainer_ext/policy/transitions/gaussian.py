"""
Denoising steps as Gaussians: next_latents = latents_coef * latents + output_coef * model_output + std * noise.

Every sampler that we know has this form, with three numbers for each step. So a sampler is a table, and one formula gives
the ratio of two policies for all samplers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ...errors import ConfigError, PipelineError
from ..transfer import to_device


@dataclass(frozen=True)
class TransitionTable:
    """
    The T denoising steps of one rollout, noisiest first.

    Parameters:
        latents_coef (`torch.Tensor` of shape `(T,)`, float64):
            Factor of the latents.
        output_coef (`torch.Tensor` of shape `(T,)`, float64):
            Factor of the guided model output.
        std (`torch.Tensor` of shape `(T,)`, float64):
            Standard deviation of the noise. 0 where the step is deterministic: it has no log-probability.
    """

    latents_coef: torch.Tensor
    output_coef: torch.Tensor
    std: torch.Tensor

    def __post_init__(self) -> None:
        finite = all(table.isfinite().all() for table in (self.latents_coef, self.output_coef, self.std))
        if not finite:
            raise PipelineError(
                "A denoising step of this scheduler has coefficients that are not finite (zero terminal SNR with "
                "prediction_type='epsilon'?). Use a scheduler with timestep_spacing='leading', or another prediction_type."
            )

    @classmethod
    def without_noise(cls, num_steps: int) -> TransitionTable:
        """
        Return the table of a solver whose steps are no Gaussians that we know.

        None has a log-probability, as if all were deterministic, and its coefficients are never used: they are 0.
        """
        zeros = torch.zeros(num_steps, dtype=torch.float64)
        return cls(zeros, zeros, zeros)

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.std)

    @property
    def stochastic_steps(self) -> torch.Tensor:
        """Indices of the steps that can be trained, int64."""
        return self.std.nonzero().flatten()

    def starting_at(self, first: int) -> TransitionTable:
        """Leave out the steps before `first`."""
        return TransitionTable(self.latents_coef[first:], self.output_coef[first:], self.std[first:])

    def mean(self, steps: torch.Tensor, latents: torch.Tensor, model_output: torch.Tensor) -> torch.Tensor:
        """Return the mean of the next latents at `steps` `(N,)`, for `latents` `(N, ...)`, in float32."""
        latents_coef, output_coef = (column(table, steps, latents) for table in (self.latents_coef, self.output_coef))
        return latents_coef * latents.float() + output_coef * model_output.float()


@dataclass(frozen=True)
class RatioTerms:
    """
    The new policy against the one that sampled, for N transitions.

    Parameters:
        log_ratio (`torch.Tensor` of shape `(N,)`, float32):
            log p_new(next_latents) - log p_old(next_latents), averaged over latent elements: nats per element.
        kl (`torch.Tensor` of shape `(N,)`, float32):
            KL(new || old) of the two Gaussians, in nats per element.
    """

    log_ratio: torch.Tensor
    kl: torch.Tensor


def column(table: torch.Tensor, steps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Take `table` `(T,)` at `steps` `(N,)`, shaped to multiply `like` `(N, ...)`, on its device, in float32."""
    values = to_device(table[steps.to(table.device)].float(), like.device)
    return values.reshape(-1, *[1] * (like.dim() - 1))


def log_prob(
    table: TransitionTable,
    steps: torch.Tensor,
    latents: torch.Tensor,
    model_output: torch.Tensor,
    next_latents: torch.Tensor,
) -> torch.Tensor:
    """
    Return log p(next_latents | latents) in nats per latent element: the mean over elements, not the sum.

    The mean is DDPO's convention; with it, a clip range of 1e-4 is meaningful. For logging and for tests; training
    uses [`ratio_terms`], which does not subtract two large numbers.

    Args:
        table ([`TransitionTable`]):
            Tables of the rollout.
        steps (`torch.Tensor` of shape `(N,)`, int64):
            Step of each transition.
        latents, model_output, next_latents (`torch.Tensor` of shape `(N, ...)`):
            State, guided prediction, and state after the step.
    """
    std = _positive_std(table, steps, latents)
    z = (next_latents.float() - table.mean(steps, latents, model_output)) / std
    return (-0.5 * z.square() - std.log() - 0.5 * math.log(2 * math.pi)).flatten(1).mean(1)


def ratio_terms(
    table: TransitionTable,
    steps: torch.Tensor,
    latents: torch.Tensor,
    model_output: torch.Tensor,
    old_model_output: torch.Tensor,
    next_latents: torch.Tensor,
) -> RatioTerms:
    """
    Compare the policy that predicts `model_output` with the one that sampled from `old_model_output`.

    With shift = output_coef * (model_output - old_model_output) / std and z the noise that was drawn,
    log ratio = z * shift - shift^2 / 2 and KL = shift^2 / 2. Both are exactly 0 when the predictions are equal,
    in any precision. Shapes as in [`log_prob`].
    """
    z = (next_latents.float() - table.mean(steps, latents, old_model_output)) / _positive_std(table, steps, latents)
    shift = _shift(table, steps, model_output, old_model_output)
    kl = 0.5 * shift.square()
    return RatioTerms(log_ratio=(z * shift - kl).flatten(1).mean(1), kl=kl.flatten(1).mean(1))


def kl_divergence(
    table: TransitionTable, steps: torch.Tensor, model_output: torch.Tensor, reference_output: torch.Tensor
) -> torch.Tensor:
    """
    Return KL(policy || reference) `(N,)` of the steps' Gaussians in nats per latent element, for the same latents.

    Both have the same std, so that it is |mean - reference mean|^2 / (2 std^2), averaged over elements. Shapes as in
    [`log_prob`].
    """
    return 0.5 * _shift(table, steps, model_output, reference_output).square().flatten(1).mean(1)


def _shift(table: TransitionTable, steps: torch.Tensor, output: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Distance of the means of two predictions, in standard deviations, `(N, ...)`."""
    coefficient = column(table.output_coef, steps, output) / _positive_std(table, steps, output)
    return coefficient * (output.float() - other.float())


def _positive_std(table: TransitionTable, steps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if not all(std > 0 for std in table.std[steps.to(table.std.device)].tolist()):  # the table is in host memory
        raise ConfigError("A deterministic step (std 0) has no log-probability: leave it out of training.")
    return column(table.std, steps, like)
