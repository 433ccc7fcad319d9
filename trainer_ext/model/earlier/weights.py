"""Earlier values of the trained weights, beside those of now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import TrainerCallback

from ...errors import CheckpointError


class EarlierWeights(TrainerCallback):
    """
    Holds earlier values of a module's trained parameters, and lends the module with them. A subclass says when they move.

    Args:
        module (`torch.nn.Module`):
            The module whose trainable parameters have earlier values beside them.

    Parameters:
        file (`str`):
            Where a checkpoint has them.
        owner (`str`):
            What they are, for an error.
    """

    file: ClassVar[str]
    owner: ClassVar[str]

    def __init__(self, module: torch.nn.Module):
        self.module = module
        self.parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.restart()

    def restart(self) -> None:
        """Begin with the trained weights of now."""
        self.values = {name: value.detach().clone() for name, value in self.parameters.items()}

    @contextlib.contextmanager
    def lent(self) -> Iterator[Callable[..., Any]]:
        """Context manager that swaps in the earlier values; yields the module."""
        trained = {name: value.detach().clone() for name, value in self.parameters.items()}
        self._put(self.values)
        try:
            yield self.module
        finally:
            self._put(trained)

    @torch.no_grad()
    def _put(self, values: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    @property
    def memory(self) -> dict[str, str]:
        """What else a checkpoint must hold, as the metadata of its file."""
        return {}

    def remember(self, memory: Mapping[str, str]) -> None:
        """Restore what [`memory`](EarlierWeights.memory) was."""

    def save(self, folder: Path) -> None:
        """Write the earlier values into a checkpoint."""
        save_file({name: value.contiguous() for name, value in self.values.items()}, folder / self.file, self.memory)

    def load(self, folder: Path) -> None:
        """
        Read the earlier values from a checkpoint.

        Raises:
            [`CheckpointError`]: it has none, or those of another adapter.
        """
        try:
            with safe_open(folder / self.file, "pt") as opened:
                values, memory = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder} holds no weights of {self.owner} ({self.file}), which this run needs: {error}. Resume with the "
                "options of the run that wrote it."
            ) from error
        shapes = [{name: value.shape for name, value in each.items()} for each in (values, self.parameters)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(f"{folder / self.file} holds weights of another adapter. Use the run's own options.")
        self.values = {name: values[name].to(value.device) for name, value in self.parameters.items()}
        self.remember(memory or {})
