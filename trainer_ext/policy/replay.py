"""Recorded denoising steps, made again."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .dry_run import Findings
from .recording.calls import Rows, unflatten
from .recording.conditioning import CallRecord, Conditioning
from .recording.trajectory import Trajectory
from .runner import Denoiser
from .transfer import to_device
from .transitions.gaussian import RatioTerms, ratio_terms


def replayed_predictions(
    findings: Findings,
    denoiser: Denoiser,
    conditioning: Conditioning,
    latents: torch.Tensor,
    rows: torch.Tensor,
    steps: torch.Tensor,
) -> torch.Tensor:
    """Make recorded calls again, one forward pass for all images that were called alike; see [`LogProbPipeline.predict`]."""
    parts = [
        (positions, _predict_group(findings, denoiser, calls, latents[positions], own_rows, steps[positions]))
        for positions, calls, own_rows in conditioning.select(rows)
    ]
    if len(parts) == 1:
        return parts[0][1]
    order = torch.cat([positions for positions, _ in parts]).argsort()
    return torch.cat([prediction for _, prediction in parts])[to_device(order, latents.device)]


def _predict_group(
    findings: Findings,
    denoiser: Denoiser,
    calls: Sequence[CallRecord],
    latents: torch.Tensor,
    rows: torch.Tensor,
    steps: torch.Tensor,
) -> torch.Tensor:
    arguments = (
        unflatten(call.arguments(layout, latents, rows, steps))
        for layout, call in zip(findings.layouts, calls, strict=True)
    )
    return guided_prediction(findings, [denoiser(**named)[0] for named in arguments], latents)


def guided_prediction(findings: Findings, outputs: Sequence[Rows], latents: torch.Tensor) -> torch.Tensor:
    """Combine the outputs of a step's calls of the denoiser as the pipeline does, for `latents` `(B, ...)`."""
    branches = [
        branch
        for layout, output in zip(findings.layouts, outputs, strict=True)
        for branch in layout.branches(output, latents.shape[1:])
    ]
    return findings.guidance(branches, latents.shape[1])


def ratios_to_record(
    trajectory: Trajectory, rows: torch.Tensor, steps: torch.Tensor, prediction: torch.Tensor
) -> RatioTerms:
    """Compare the policy that makes a `prediction` `(N, ...)` of recorded transitions with the one that sampled them."""
    latents, old_output, next_latents = (
        to_device(values, prediction.device)
        for values in (
            trajectory.latents[rows, steps],
            trajectory.model_outputs[rows, steps],
            trajectory.latents[rows, steps + 1],
        )
    )
    return ratio_terms(trajectory.table, steps, latents, prediction, old_output, next_latents)
