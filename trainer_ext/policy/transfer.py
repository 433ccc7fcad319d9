"""Moves tensors between host and device without waiting where that is safe."""

from __future__ import annotations

from typing import Any

import torch


def to_device(value: Any, device: torch.device | str) -> Any:
    """
    Move the tensors inside `value` to `device`.

    The host does not wait for a copy to a CUDA device: CUDA reads pageable memory before the call returns.
    """
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=torch.device(device).type == "cuda" and value.device.type == "cpu")
    if isinstance(value, list | tuple):
        return type(value)(to_device(inner, device) for inner in value)
    if isinstance(value, dict):
        return {name: to_device(inner, device) for name, inner in value.items()}
    return value
