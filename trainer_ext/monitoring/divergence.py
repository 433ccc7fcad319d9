"""How far the policy has moved: KL(policy || model before training), from the runs that an evaluation recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from transformers import TrainerState

from ..loop.stopping import is_evaluation
from ..model.denoiser import TrainedDenoiser
from ..policy.pipeline import LogProbPipeline
from ..policy.recording.trajectory import Trajectory
from ..policy.transitions.gaussian import kl_divergence
from ..types import FloatArray

MAX_IMAGES = 32  #: of an evaluation that are measured, over all processes


@dataclass(frozen=True)
class Turns:
    """
    Which step of each measured image is compared, and for how much of the sum over steps it stands.

    The steps are cut into as many runs of consecutive ones as there are images, or into single steps where images suffice, and
    the images are dealt out to them. The mean of a run's images, times its number of steps, is its share of the sum. In a run of
    several steps one is measured, the next one in the next evaluation: each equally often, so that the mean over evaluations
    favours none, and after as many evaluations as a run has steps all are covered.

    Parameters:
        places (`Sequence[int]`):
            Places of this process's measured images among all processes' measured ones.
        total (`int`):
            Number of measured images of all processes.
        evaluation (`int`):
            Number of evaluations before this one.
    """

    places: Sequence[int]
    total: int
    evaluation: int

    @classmethod
    def of(cls, shares: Sequence[int], process: int, evaluation: int) -> Turns:
        """Deal out the turns to processes that measure `shares` images each, one image of each process after another."""
        order = sorted((image, rank) for rank, share in enumerate(shares) for image in range(share))
        places = [place for place, (_, rank) in enumerate(order) if rank == process]
        return cls(places, len(order), evaluation)

    def chosen(self, first: int, count: int, num_steps: int) -> tuple[torch.Tensor, FloatArray]:
        """
        Return the positions of the steps of this process's next images `(n,)`, n <= `count`, of which the first is its `first`;
        and their weights `(n,)`, such that the mean of weight * divergence over all measured images is the sum over steps.
        """
        places = np.array(self.places[first : first + count], np.int64)
        runs = min(self.total, num_steps)
        run = places % runs
        start, end = run * num_steps // runs, (run + 1) * num_steps // runs
        images = (self.total - run + runs - 1) // runs  # that share a run
        length = end - start
        return torch.from_numpy(start + self.evaluation % length), length * self.total / images


@dataclass(frozen=True)
class DivergenceMeter:
    """
    Measures the KL divergence of recorded denoising runs.

    The outputs of the policy are in the record, so that the model before training alone is called: once for each measured image,
    at one of its steps with noise: see [`Turns`].

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

    def turns(self, shares: Sequence[int], process: int, trainer_state: TrainerState) -> Turns:
        """Deal out the steps of an evaluation of `shares` images by each process; they move on after each evaluated update."""
        logged = {log["step"] for log in trainer_state.log_history if is_evaluation(log)}
        earlier = sum(step < trainer_state.global_step for step in logged)
        return Turns.of([min(share, self.num_images) for share in shares], process, earlier)

    @torch.no_grad()
    def measure(self, trajectory: Trajectory, turns: Turns, first: int) -> FloatArray:
        """
        Return the divergence of B images `(B,)`, in nats an image: that of one step, times what it stands for, so that the mean
        over measured images is the sum over steps.

        It is NaN for images that are not measured, which have no turn, and for all where no step has a log-probability or the
        model before training is no longer there.

        Args:
            trajectory ([`Trajectory`]):
                The recorded runs.
            turns ([`Turns`]):
                The turns of this evaluation.
            first (`int`):
                Number of images that this process has sampled before in this evaluation.
        """
        steps = trajectory.table.stochastic_steps
        kl = np.full(len(trajectory), np.nan)
        if not len(steps) or not self.denoiser.keeps_reference:
            return kl
        positions, weights = turns.chosen(first, len(kl), len(steps))
        rows = torch.arange(len(positions))
        if len(rows):
            kl[: len(rows)] = (
                weights * self._at(trajectory, rows, steps[positions]).numpy() * trajectory.latents[0, 0].numel()
            )
        return kl

    def _at(self, trajectory: Trajectory, rows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Return the divergence of each image's step, in nats per latent element."""
        latents = trajectory.latents[rows, steps]
        with self.accelerator.autocast(), self.denoiser.reference() as reference:
            expected = self.policy.predict(trajectory.conditioning, latents, rows, steps, reference)
        output = trajectory.model_outputs[rows, steps].to(expected.device)
        return kl_divergence(trajectory.table, steps, output, expected).double().cpu()
