"""How many bytes a forward pass keeps for the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ..model.denoiser import TrainedDenoiser


class SavedTensors:
    """
    Counts the tensors that autograd saves, each storage once, without those of a module's weights.

    Args:
        module (`torch.nn.Module`):
            The module.
    """

    def __init__(self, module: torch.nn.Module):
        self._weights = {value.untyped_storage().data_ptr() for value in module.parameters()}
        self._sizes: dict[int, int] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes that were saved."""
        return sum(self._sizes.values())

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Context manager for the forward pass."""
        with torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor):
            yield

    def _note(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor


@contextlib.contextmanager
def checkpointing(denoiser: TrainedDenoiser) -> Iterator[bool]:
    """Context manager in which activations are computed again in the backward pass; yield whether the denoiser can do that."""
    was_on = denoiser.base.is_gradient_checkpointing
    try:
        denoiser.gradient_checkpointing_enable()
    except ValueError:  # of a model of diffusers that has no checkpoints
        yield False
        return
    try:
        yield True
    finally:
        if not was_on:
            denoiser.base.disable_gradient_checkpointing()
