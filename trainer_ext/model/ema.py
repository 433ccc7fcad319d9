"""An exponential moving average of the trained weights. The average is evaluated, drawn and saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import CheckpointError

TRAINED_FILE = "trained_weights.safetensors"  #: of a checkpoint whose other weights are the average


def check_average(checkpoint: Path, decay: float | None) -> None:
    """
    Refuse to resume from an average as if it were the trained weights, or from trained weights as if they were an average.

    Raises:
        [`CheckpointError`]: `decay` and the checkpoint do not agree on whether there is an average.
    """
    if (checkpoint / TRAINED_FILE).is_file() != (decay is not None):
        raise CheckpointError(
            f"{checkpoint} was written with{'out' if decay is not None else ''} a moving average of the weights, and ema_decay "
            f"is {decay}. Resume with the original ema_decay."
        )


class MovingAverage(TrainerCallback):
    """
    Averages after every update. Early updates count more: the average starts at update 1; at n > 1 the decay is
    min(decay, n / (n + 9)).

    Args:
        module (`torch.nn.Module`):
            The module whose trainable parameters are averaged.
        decay (`float`):
            Decay of the average, in (0, 1).
    """

    def __init__(self, module: torch.nn.Module, decay: float):
        self.parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.average = EMAModel(self.parameters.values(), decay)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Add an update to the average."""
        self.average.step(self.parameters.values())

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Context manager that swaps in the average for the trained weights."""
        self.average.store(self.parameters.values())
        self.average.copy_to(self.parameters.values())
        try:
            yield
        finally:
            self.average.restore(self.parameters.values())

    def save(self, folder: Path) -> None:
        """Write the trained weights beside the average, which the checkpoint already holds."""
        weights = {name: value.detach().contiguous() for name, value in self.parameters.items()}
        save_file(weights, folder / TRAINED_FILE, {"updates": str(self.average.optimization_step)})

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Use the module's weights, loaded from `folder`, as the average, and load the trained ones from their file."""
        self.restart()
        with safe_open(folder / TRAINED_FILE, "pt") as file:
            self.average.optimization_step = int(file.metadata()["updates"])
            for name, value in self.parameters.items():
                value.copy_(file.get_tensor(name))

    def restart(self) -> None:
        """Start the average from the module's weights."""
        self.average.shadow_params = [value.detach().clone() for value in self.parameters.values()]
