"""The trained weights, with their moving average and their old policy: which are evaluated, drawn, saved, and sampled with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from transformers import TrainerCallback

from ..config import DDPOConfig
from ..errors import ConfigError
from ..learning.old_policy import OldPolicy
from ..learning.regularisation.resets import ResetRule
from .denoiser import TrainedDenoiser
from .earlier.old_policy import OldWeights
from .earlier.reference import MovingReference
from .ema import MovingAverage, check_average
from .handover import Loan


@dataclass(frozen=True)
class RunWeights:
    """
    The weights of a run.

    Parameters:
        denoiser ([`TrainedDenoiser`]):
            The trained module.
        average ([`MovingAverage`], *optional*):
            The moving average of its weights. If there is one, it is evaluated, drawn and saved.
        old ([`OldWeights`], *optional*):
            The weights of the algorithm's old policy, if it has one.
        loan ([`Loan`]):
            The pipeline that they are in, which is given back when it is not in use.
        moving ([`MovingReference`], *optional*):
            The reference of the distance in the loss, if it does not stay the model before training.
    """

    denoiser: TrainedDenoiser
    average: MovingAverage | None
    old: OldWeights | None
    loan: Loan
    moving: MovingReference | None = None

    @classmethod
    def of(
        cls,
        pipeline: DiffusionPipeline,
        denoiser: TrainedDenoiser,
        args: DDPOConfig,
        old_policy: OldPolicy | None = None,
    ) -> RunWeights:
        """Return the weights of a run that begins."""
        average = MovingAverage(denoiser, args.ema_decay) if args.ema_decay else None
        old = None if old_policy is None else OldWeights(denoiser, old_policy, args.updates_per_rollout)
        rule = ResetRule.of(args)
        moving = None if rule is None else MovingReference(denoiser, rule, args.updates_per_rollout)
        return cls(denoiser, average, old, Loan(pipeline, denoiser), moving)

    @property
    def callbacks(self) -> list[TrainerCallback]:
        """Callbacks that follow the updates."""
        return [follower for follower in (self.average, self.old, self.moving) if follower is not None]

    def sampling(self) -> AbstractContextManager[Any]:
        """Context manager that swaps in the weights to sample rollouts with: the trained ones, unless the old policy samples."""
        return self.old.lent() if self.old is not None and self.old.policy.samples else contextlib.nullcontext()

    def old_policy(self) -> AbstractContextManager[Callable[..., Any]]:
        """Context manager that lends the denoiser with the old policy's weights."""
        if self.old is None:
            raise ConfigError("This run's algorithm has no old policy.")
        return self.old.lent()

    def reference(self) -> AbstractContextManager[Any]:
        """Context manager that lends the denoiser with the weights that the distance in the loss is measured from."""
        return self.untrained() if self.moving is None else self.moving.lent()

    def note_distances(self, distances: torch.Tensor) -> None:
        """Note the distances `(N,)` from the reference in a forward pass, for a rule by which it moves."""
        if self.moving is not None:
            self.moving.note(distances)

    def evaluated(self) -> AbstractContextManager[None]:
        """Context manager that swaps in the weights to evaluate, draw and save."""
        return contextlib.nullcontext() if self.average is None else self.average.applied()

    @property
    def keeps_base(self) -> bool:
        """Whether the weights from before training are still there, under an adapter."""
        return self.denoiser.peft_config is not None

    def untrained(self) -> AbstractContextManager[Any]:
        """Context manager that switches the adapter off. Needs [`keeps_base`](RunWeights.keeps_base)."""
        return self.denoiser.reference()

    def save(self, folder: Path, pipeline: DiffusionPipeline, state: dict[str, Any] | None = None) -> None:
        """Write files that stock diffusers loads. See [`TrainedDenoiser.save`]."""
        folder.mkdir(parents=True, exist_ok=True)
        with self.evaluated():
            self.denoiser.save(folder, pipeline, state)

    def add_to_checkpoint(self, folder: Path) -> None:
        """Write the trained weights into a checkpoint that holds their average, and earlier ones that the run needs."""
        for kept in (self.average, self.old, self.moving):
            if kept is not None:
                kept.save(folder)

    def load_checkpoint(self, folder: Path, ema_decay: float | None) -> None:
        """
        Load the trained weights, their average, and earlier ones that the run needs.

        Raises:
            [`CheckpointError`]: only one of the checkpoint and the run has an average, or the checkpoint lacks earlier weights.
            [`ConfigError`]: its weights do not fit.
        """
        check_average(folder, ema_decay)
        self.denoiser.load(folder)
        for kept in (self.average, self.old, self.moving):
            if kept is not None:
                kept.load(folder)

    def load_saved(self, folder: Path) -> None:
        """Load saved weights as the trained weights, as their average and as the old policy's."""
        self.denoiser.load(folder)
        if self.average is not None:
            self.average.restart()
        if self.old is not None:
            self.old.restart()
