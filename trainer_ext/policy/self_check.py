"""Checks before the first update that replaying a step gives what was sampled."""

from __future__ import annotations

import torch

from ..errors import PipelineError
from .pipeline import LogProbPipeline
from .recording.trajectory import Trajectory

GRADIENT_TOLERANCE = 0.05  #: error of compiled code's gradient, relative to its norm; wrong gradients were off by 1


def check_replay(policy: LogProbPipeline, model: torch.nn.Module, trajectory: Trajectory, clip_range: float) -> None:
    """
    Replay a step in the batch in which it was sampled. If ratios are not 1 before any update, training would be wrong.

    Raises:
        [`PipelineError`]: a log-ratio is further from 0 than a tenth of `clip_range`.
    """
    with torch.no_grad():
        error = first_log_ratios(policy, model, trajectory).abs().max().item()
    if not error <= clip_range / 10:
        raise PipelineError(
            f"Replaying a step of the rollout gives a log-ratio of {error:.1e} before any update; it must be 0 (allowed: a "
            f"tenth of clip_range={clip_range:.0e}). Something in the pipeline is not deterministic: dropout, "
            "compiled or non-deterministic kernels, or an argument that the record does not see."
        )


def check_compiled(
    policy: LogProbPipeline, model: torch.nn.Module, uncompiled: torch.nn.Module, trajectory: Trajectory
) -> None:
    """
    Compare the gradient of compiled code with that of the same step without compilation.

    On the CPU, torch 2.13's Inductor silently returns gradients that are zero for some layers of a UNet.

    Args:
        policy ([`LogProbPipeline`]):
            Replays the steps.
        model (`torch.nn.Module`):
            The compiled denoiser.
        uncompiled (`torch.nn.Module`):
            The same module without compilation.
        trajectory ([`Trajectory`]):
            The steps to replay.

    Raises:
        [`PipelineError`]: the gradients differ.
    """
    weights = [value for value in uncompiled.parameters() if value.requires_grad]
    compiled, expected = (
        torch.autograd.grad(first_log_ratios(policy, module, trajectory).sum(), weights, materialize_grads=True)
        for module in (model, uncompiled)
    )
    size = torch.stack([value.norm() for value in expected]).norm()
    difference = torch.stack([(a - b).norm() for a, b in zip(compiled, expected, strict=True)]).norm()
    if not difference <= GRADIENT_TOLERANCE * size:
        raise PipelineError(
            f"The compiled denoiser's gradient is wrong: it is off by {float(difference / size):.0%} of its size (allowed "
            f"{GRADIENT_TOLERANCE:.0%}). Train without torch_compile, or with another torch_compile_backend."
        )


def first_log_ratios(policy: LogProbPipeline, model: torch.nn.Module, trajectory: Trajectory) -> torch.Tensor:
    """Return the log-ratios `(B,)` of all images at the first step with noise, replayed in the batch they were sampled in."""
    rows = torch.arange(len(trajectory))
    return policy.ratio_terms(
        trajectory, rows, trajectory.table.stochastic_steps[:1].expand(len(rows)), model
    ).log_ratio
