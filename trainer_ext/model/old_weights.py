"""The weights of an algorithm's old policy, beside the trained ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import CheckpointError
from ..learning.old_policy import OldPolicy

OLD_FILE = "old_policy.safetensors"  #: of a checkpoint of a run whose algorithm has an old policy


class OldWeights(TrainerCallback):
    """
    Moves the old policy's weights after updates, and lends the module with them.

    Args:
        module (`torch.nn.Module`):
            The module whose trainable parameters have old values beside them.
        policy ([`OldPolicy`]):
            When and how far they move.
        updates_per_rollout (`int`):
            Updates between two rollouts.
    """

    def __init__(self, module: torch.nn.Module, policy: OldPolicy, updates_per_rollout: int):
        self.module, self.policy, self.updates_per_rollout = module, policy, updates_per_rollout
        self.parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.restart()

    def restart(self) -> None:
        """Begin with the trained weights of now."""
        self.values = {name: value.detach().clone() for name, value in self.parameters.items()}

    @torch.no_grad()
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Move after an update, if one is due."""
        moves = self.policy.moves_after(state.global_step, self.updates_per_rollout)
        if moves is not None:
            for name, value in self.parameters.items():
                self.values[name] = torch.lerp(value.detach(), self.values[name].to(value), self.policy.decay(moves))

    @contextlib.contextmanager
    def lent(self) -> Iterator[Callable[..., Any]]:
        """Context manager that swaps in the old values; yields the module."""
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

    def save(self, folder: Path) -> None:
        """Write the old values into a checkpoint."""
        save_file({name: value.contiguous() for name, value in self.values.items()}, folder / OLD_FILE)

    def load(self, folder: Path) -> None:
        """
        Read the old values from a checkpoint.

        Raises:
            [`CheckpointError`]: it has none, or those of another adapter.
        """
        try:
            values = load_file(folder / OLD_FILE)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder} holds no weights of an old policy ({OLD_FILE}), which this run's algorithm needs: {error}. Resume "
                "with the algorithm of the run that wrote it, with the same options."
            ) from error
        shapes = [{name: value.shape for name, value in each.items()} for each in (values, self.parameters)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(f"{folder / OLD_FILE} holds weights of another adapter. Use the run's own options.")
        self.values = {name: values[name].to(value.device) for name, value in self.parameters.items()}
