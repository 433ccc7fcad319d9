"""What the trackers that a run reports to get beside its logs: what made the run, and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from logging import getLogger
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import CallbackHandler

from ..loop.describing import describing
from ..runs.setup import SetupCallback
from ..runs.setup.beginning import Resuming

logger = getLogger(__name__)

NAME = "samples"  #: under which trackers show the pictures
SETUP = "run.json"  #: under which they show what made the run


@dataclass(frozen=True)
class Picture:
    """
    A picture of a fixed prompt and seed.

    Parameters:
        file (`Path`):
            The picture.
        caption (`str`):
            Prompt, seed and reward.
    """

    file: Path
    caption: str

    @classmethod
    def captioned(cls, file: Path, prompt: str, seed: int, reward: float) -> Picture:
        """Return a picture with a caption of what it shows."""
        return cls(file, f"{prompt}, seed {seed}: {reward:.4g}")


Show = Callable[[Iterable[TrainerCallback], Sequence[Picture], int], None]


def _tensorboard(callbacks: Iterable[TrainerCallback], pictures: Sequence[Picture], updates: int) -> None:
    """Use the callback's own writer: of two files of one run, TensorBoard would stop reading the first."""
    writers = [callback.tb_writer for callback in callbacks if isinstance(callback, TensorBoardCallback)]
    for writer in filter(None, writers):
        for index, picture in enumerate(pictures):
            with Image.open(picture.file) as image:
                pixels = np.asarray(image.convert("RGB"))
            writer.add_image(f"{NAME}/{index:02d}", pixels, updates, dataformats="HWC")
            writer.add_text(f"{NAME}/{index:02d}/caption", picture.caption, updates)


def _wandb(callbacks: Iterable[TrainerCallback], pictures: Sequence[Picture], updates: int) -> None:
    wandb = import_module("wandb")
    images = [wandb.Image(str(picture.file), caption=picture.caption) for picture in pictures]
    wandb.log({NAME: images, "train/global_step": updates})


def _trackio(callbacks: Iterable[TrainerCallback], pictures: Sequence[Picture], updates: int) -> None:
    trackio = import_module("trackio")
    images = {
        f"{NAME}/{index:02d}": trackio.Image(str(picture.file), caption=picture.caption)
        for index, picture in enumerate(pictures)
    }
    trackio.log({**images, "train/global_step": updates})


def _mlflow(callbacks: Iterable[TrainerCallback], pictures: Sequence[Picture], updates: int) -> None:
    mlflow = import_module("mlflow")
    for picture in pictures:
        mlflow.log_artifact(str(picture.file), f"{NAME}/update-{updates:05d}")


TRACKERS: dict[str, Show] = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio, "mlflow": _mlflow}


def show_pictures(
    names: Sequence[str], callbacks: Iterable[TrainerCallback], pictures: Sequence[Picture], updates: int
) -> None:
    """
    Give pictures to trackers. One that fails, or takes no pictures, is a warning.

    Args:
        names (`Sequence[str]`):
            The trackers, as in `report_to`.
        callbacks (`Iterable[TrainerCallback]`):
            The trainer's callbacks, which own the connection to some trackers.
        pictures (`Sequence[Picture]`):
            The pictures, the same prompts and seeds each time.
        updates (`int`):
            Optimizer updates before this moment.
    """
    for name in names:
        show = TRACKERS.get(name)
        if show is None:
            _warn_once(name)
            continue
        with describing(f"The pictures for {name}"):
            show(list(callbacks), pictures, updates)


# What made a run, for the trackers whose parameters can be added to; all of them have the options from `Trainer`.
Tell = Callable[[Iterable[TrainerCallback], Mapping[str, Any]], None]


def _tell_tensorboard(callbacks: Iterable[TrainerCallback], setup: Mapping[str, Any]) -> None:
    writers = [callback.tb_writer for callback in callbacks if isinstance(callback, TensorBoardCallback)]
    for writer in filter(None, writers):
        writer.add_text(SETUP, f"```json\n{json.dumps(setup, indent=2)}\n```", 0)


def _tell_wandb(callbacks: Iterable[TrainerCallback], setup: Mapping[str, Any]) -> None:
    import_module("wandb").config.update({SETUP: dict(setup)}, allow_val_change=True)


def _tell_mlflow(callbacks: Iterable[TrainerCallback], setup: Mapping[str, Any]) -> None:
    import_module("mlflow").log_dict(dict(setup), SETUP)


TOLD: dict[str, Tell] = {"tensorboard": _tell_tensorboard, "wandb": _tell_wandb, "mlflow": _tell_mlflow}


class HasCallbacks(Protocol):
    """A trainer, as far as its trackers are concerned."""

    callback_handler: CallbackHandler


class Reports(HasCallbacks, Protocol):
    """What logs metrics, and has the callbacks of trackers."""

    def log(self, logs: dict[str, float]) -> None:
        """Log metrics."""


class TrackedSetupCallback(SetupCallback):
    """
    Writes `run.json`, and gives what it says to the trackers.

    Args:
        checkpointer ([`Resuming`]):
            Knows the setup of the run.
        trainer ([`HasCallbacks`]):
            Its callbacks own the connection to some trackers.
    """

    def __init__(self, checkpointer: Resuming, trainer: HasCallbacks):
        super().__init__(checkpointer)
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the file, then tell the trackers, which have begun their run by now."""
        super().on_train_begin(args, state, control, **kwargs)
        if not state.is_world_process_zero:
            return
        for name in TOLD.keys() & set(args.report_to or ()):
            with describing(f"What {name} is told about the run"):
                TOLD[name](self.trainer.callback_handler.callbacks, self.checkpointer.setup.as_dict())


@cache
def _warn_once(name: str) -> None:
    logger.warning("%s gets no pictures; those that do are %s. All are in samples/.", name, ", ".join(TRACKERS))
