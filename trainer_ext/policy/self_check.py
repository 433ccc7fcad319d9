"""Checks before the first update: the adapter changes nothing yet, a replayed step is what was sampled, gradients arrive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import torch

from ..errors import PipelineError
from .deviations import Replayed
from .pipeline import LogProbPipeline
from .recording.calls import DenoiserCall, Rows, unflatten
from .recording.trajectory import Trajectory

GRADIENT_TOLERANCE = 0.05  #: error of a gradient taken in another way, relative to its norm; wrong ones were off by 1
#: The same in half precision: in bf16 right gradients of a UNet of 860 M parameters were off by 0.05, on an H100.
HALF_GRADIENT_TOLERANCE = 0.15


def check_unchanged(calls: Sequence[DenoiserCall], denoiser: torch.nn.Module) -> None:
    """
    Repeat calls from before the adapter was added. Bit for bit, or training would begin from another model than was given.

    A denoiser that does not even repeat itself is left to [`check_replay`].

    Raises:
        [`PipelineError`]: an output differs.
    """
    before, after = [_rows(call.output) for call in calls], _outputs(calls, denoiser)
    if _same(before, after) or not _same(after, _outputs(calls, denoiser)):
        return
    pairs = zip(chain(*before), chain(*after), strict=True)
    difference = max(float((first - second).abs().max()) for first, second in pairs)
    raise PipelineError(
        f"The adapter changes what the denoiser predicts before any training (by {difference:.1e}): the run would not begin from "
        "the pipeline that was given. Use init_lora_weights='gaussian' or True in peft_config."
    )


@torch.no_grad()
def _outputs(calls: Sequence[DenoiserCall], denoiser: torch.nn.Module) -> list[list[torch.Tensor]]:
    """Make the calls again, and return their outputs."""
    return [_rows(denoiser(**unflatten(call.arguments))[0]) for call in calls]


def _rows(output: Rows) -> list[torch.Tensor]:
    return output if isinstance(output, list) else [output]


def _same(first: Sequence[list[torch.Tensor]], second: Sequence[list[torch.Tensor]]) -> bool:
    return all(torch.equal(*pair) for pair in zip(chain(*first), chain(*second), strict=True))


def check_replay(policy: LogProbPipeline, model: torch.nn.Module, trajectory: Trajectory, clip_range: float) -> None:
    """
    Replay a step in the batch in which it was sampled. If it is not what was sampled, training would be wrong.

    Raises:
        [`PipelineError`]: a log-ratio, or without one the relative change, is further from 0 than a tenth of `clip_range`.
    """
    with torch.no_grad():
        error = Replayed.as_sampled(trajectory).deviations(policy, model).abs().max().item()
    if not error <= clip_range / 10:
        measure = "log-ratio" if len(trajectory.table.stochastic_steps) else "relative change"
        raise PipelineError(
            f"Replaying a step of the rollout gives a {measure} of {error:.1e} before any update; it must be 0 (allowed: a "
            f"tenth of clip_range={clip_range:.0e}). Something in the pipeline is not deterministic: dropout, "
            "compiled or non-deterministic kernels, or an argument that the record does not see."
        )


def check_training_shape(
    policy: LogProbPipeline, model: torch.nn.Module, replayed: Replayed, clip_range: float
) -> None:
    """
    Replay steps in a batch of training's shape. In half precision, kernels round differently in each shape.

    Raises:
        [`PipelineError`]: a log-ratio is beyond `clip_range`, so that it would be clipped before anything was learned.
    """
    with torch.no_grad():
        error = replayed.deviations(policy, model).abs().max().item()
    if not error <= clip_range:
        rows, sampled = (pairs * policy.num_branches for pairs in (len(replayed.rows), len(replayed.trajectory)))
        raise PipelineError(
            f"In a forward pass of training, of {rows} rows, steps that were sampled with {sampled} rows have a log-ratio of "
            f"{error:.1e} before any update, beyond clip_range={clip_range:.0e}: the denoiser rounds differently in the two. Set "
            f"rows_per_forward={sampled}, or use a larger clip_range or float32."
        )


def gradient_tolerance(policy: LogProbPipeline) -> float:
    """Return the error that a gradient taken in another way may have, relative to its norm: more in half precision."""
    half = any(layout.dtype in (torch.bfloat16, torch.float16) for layout in policy.findings.layouts)
    return HALF_GRADIENT_TOLERANCE if half else GRADIENT_TOLERANCE


def check_compiled(
    policy: LogProbPipeline, model: torch.nn.Module, uncompiled: torch.nn.Module, replayed: Replayed
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
        replayed ([`Replayed`]):
            The steps to replay.

    Raises:
        [`PipelineError`]: the gradients differ.
    """
    weights = [value for value in uncompiled.parameters() if value.requires_grad]
    compiled, expected = (
        torch.autograd.grad(replayed.deviations(policy, module).sum(), weights, materialize_grads=True)
        for module in (model, uncompiled)
    )
    size = torch.stack([value.norm() for value in expected]).norm()
    difference = torch.stack([(a - b).norm() for a, b in zip(compiled, expected, strict=True)]).norm()
    allowed = gradient_tolerance(policy)
    if not difference <= allowed * size:
        raise PipelineError(
            f"The compiled denoiser's gradient is wrong: it is off by {float(difference / size):.0%} of its size (allowed "
            f"{allowed:.0%}). Train without torch_compile, or with another torch_compile_backend."
        )


def check_gradients(policy: LogProbPipeline, denoiser: torch.nn.Module, replayed: Replayed) -> None:
    """
    Take one gradient, so that what fails only in the backward pass fails before a rollout is complete.

    Args:
        policy ([`LogProbPipeline`]):
            Replays the steps.
        denoiser (`torch.nn.Module`):
            The trained module itself, not what exchanges its gradients between processes.
        replayed ([`Replayed`]):
            The steps to replay, as many as training takes at once.

    Raises:
        [`PipelineError`]: the backward pass fails, or no gradient reaches the trained weights.
    """
    weights = [value for value in denoiser.parameters() if value.requires_grad]
    try:
        deviations = replayed.deviations(policy, denoiser)
        gradients = torch.autograd.grad(deviations.sum(), weights, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise PipelineError(
            f"The backward pass through pipeline.{policy.denoiser_name} failed: {error}\nSomething in it computes without "
            "gradients: weights that are quantised, cast or moved while it runs, a kernel for inference, or gradients that are "
            "off (torch.no_grad()). Load the pipeline without it."
        ) from error
    check_gradients_arrive(gradients)


def check_gradients_arrive(gradients: Iterable[torch.Tensor | None]) -> None:
    """
    Check the gradients of the trained weights.

    Raises:
        [`PipelineError`]: all are zero, or missing.
    """
    if not any(gradient is not None and bool(gradient.any()) for gradient in gradients):
        raise PipelineError("No gradient reaches the trained weights: the denoiser's output does not depend on them.")
