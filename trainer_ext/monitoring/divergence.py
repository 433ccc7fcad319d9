"""How far the policy has moved: KL(policy || model before training), from the runs that an evaluation recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from ..model.denoiser import TrainedDenoiser
from ..policy.pipeline import LogProbPipeline
from ..policy.recording.trajectory import Trajectory
from ..policy.transitions.gaussian import kl_divergence
from ..types import FloatArray

MAX_IMAGES = 32  #: of an evaluation that are measured, over all processes
GOLDEN = (5**0.5 - 1) / 2  #: its multiples, modulo 1, cover [0, 1) evenly, however many they are


@dataclass(frozen=True)
class DivergenceMeter:
    """
    Measures the KL divergence of recorded denoising runs.

    The outputs of the policy are in the record, so that the model before training alone is called: once for each measured image,
    at one of its steps with noise. Images take turns, so that together they cover all steps evenly.

    Parameters:
        policy ([`LogProbPipeline`]):
            Replays recorded steps.
        denoiser ([`TrainedDenoiser`]):
            Lends the model before training.
        accelerator (`Accelerator`):
            The trainer's accelerator, for its precision.
    """

    policy: LogProbPipeline
    denoiser: TrainedDenoiser
    accelerator: Accelerator

    @property
    def num_images(self) -> int:
        """Number of images of an evaluation that each process measures: equal, because a forward pass may need all processes."""
        return max(1, MAX_IMAGES // self.accelerator.num_processes)

    @torch.no_grad()
    def measure(self, trajectory: Trajectory, left: int) -> FloatArray:
        """
        Return the divergence of B images `(B,)`, in nats an image, summed over steps: that of one step, times their number.

        It is NaN for those that are not measured: all but the first `left`, and all where no step has a log-probability or the
        model before training is no longer there.

        Args:
            trajectory ([`Trajectory`]):
                The recorded runs.
            left (`int`):
                Number of images that are still to be measured; it also decides whose turn each step is.
        """
        steps = trajectory.table.stochastic_steps
        kl = np.full(len(trajectory), np.nan)
        rows = torch.arange(min(left, len(trajectory)))
        if not len(rows) or not len(steps) or not self.denoiser.keeps_reference:
            return kl
        turns = ((left - rows) * GOLDEN % 1 * len(steps)).long()
        per_element = self._at(trajectory, rows, steps[turns]).numpy()
        kl[: len(rows)] = per_element * trajectory.latents[0, 0].numel() * len(steps)
        return kl

    def _at(self, trajectory: Trajectory, rows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Return the divergence of each image's step, in nats per latent element."""
        latents = trajectory.latents[rows, steps]
        with self.accelerator.autocast(), self.denoiser.reference() as reference:
            expected = self.policy.predict(trajectory.conditioning, latents, rows, steps, reference)
        output = trajectory.model_outputs[rows, steps].to(expected.device)
        return kl_divergence(trajectory.table, steps, output, expected).double().cpu()
