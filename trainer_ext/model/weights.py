"""The trained weights and, if a run keeps one, their moving average: which of them is evaluated, drawn and saved."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from ..config import DDPOConfig
from .denoiser import TrainedDenoiser
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
        loan ([`Loan`]):
            The pipeline that they are in, which is given back when it is not in use.
    """

    denoiser: TrainedDenoiser
    average: MovingAverage | None
    loan: Loan

    @classmethod
    def of(cls, pipeline: DiffusionPipeline, denoiser: TrainedDenoiser, args: DDPOConfig) -> RunWeights:
        """Return the weights of a run that begins."""
        average = MovingAverage(denoiser, args.ema_decay) if args.ema_decay else None
        return cls(denoiser, average, Loan(pipeline, denoiser))

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
        """Write the trained weights into a checkpoint that holds their average."""
        if self.average is not None:
            self.average.save(folder)

    def load_checkpoint(self, folder: Path, ema_decay: float | None) -> None:
        """
        Load the trained weights, and their average.

        Raises:
            [`CheckpointError`]: only one of the checkpoint and the run has an average.
            [`ConfigError`]: its weights do not fit.
        """
        check_average(folder, ema_decay)
        self.denoiser.load(folder)
        if self.average is not None:
            self.average.load(folder)

    def load_saved(self, folder: Path) -> None:
        """Load saved weights, both as the trained weights and as their average."""
        self.denoiser.load(folder)
        if self.average is not None:
            self.average.restart()
