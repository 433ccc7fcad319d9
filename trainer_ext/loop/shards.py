"""
Each process's share of trained weights and of the optimizer's state, in a safetensors file of its own: nothing is pickled,
because torch's own sharded checkpoints (`.distcp`) have a pickled index, which can run code where it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.fsdp import StateDictType
from torch.distributed.tensor import DTensor

from ..errors import CheckpointError

WEIGHT, STATE = "weight", "state"  #: beginnings of the names of tensors


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether each process saves its own share, as `SHARDED_STATE_DICT` says."""
    if accelerator.distributed_type != DistributedType.FSDP:
        return False
    return bool(accelerator.state.fsdp_plugin.state_dict_type == StateDictType.SHARDED_STATE_DICT)


def share_file(folder: Path, process: int, num_processes: int) -> Path:
    """Return the file of a process's share in a checkpoint."""
    return folder / f"share-{process:05d}-of-{num_processes:05d}.safetensors"


def has_shares(folder: Path) -> bool:
    """Return whether a checkpoint is one of shares."""
    return any(folder.glob("share-*.safetensors"))


def write_share(file: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write this process's part of all trained weights, and of what the optimizer knows of them."""
    state = optimizer.state_dict()
    tensors = {f"{WEIGHT}.{name}": _local(value) for name, value in _trained(model).items()}
    plain: dict[str, Any] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{STATE}.{index}.{name}"] = _local(value)
            else:
                plain[f"{STATE}.{index}.{name}"] = value
    about = {"shapes": _shapes(model), "groups": state["param_groups"], "plain": plain}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, {name: json.dumps(value) for name, value in about.items()})


def read_share(file: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """
    Read what [`write_share`] wrote into the weights and the optimizer, bit for bit.

    Raises:
        [`CheckpointError`]: the file is not there, or belongs to other weights.
    """
    if not file.is_file():
        raise CheckpointError(
            f"{file.parent} has no {file.name}. It was written by another number of processes, or without SHARDED_STATE_DICT; "
            "resume as it was written."
        )
    with safe_open(file, "pt") as opened:
        about = {name: json.loads(text) for name, text in opened.metadata().items()}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    if about["shapes"] != _shapes(model):
        raise CheckpointError(
            f"{file} belongs to other trained weights than those of this run; were its options changed?"
        )
    weights = _trained(model)
    with torch.no_grad():
        for name, value in weights.items():
            _local(value).copy_(tensors[f"{WEIGHT}.{name}"])
    optimizer.load_state_dict(_optimizer_state(about, tensors, optimizer))


def gathered(model: torch.nn.Module, keep: bool) -> dict[str, torch.Tensor]:
    """Return the whole trained weights on the CPU, in the process that keeps them. Every process must call this."""
    found = {}
    for name, value in _trained(model).items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if keep:
            found[name] = whole.detach().cpu()
    return found


def _optimizer_state(
    about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Return the state as `load_state_dict` takes it: moments are spread over processes as their weights are."""
    held = [value for group in optimizer.param_groups for value in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**about["plain"], **tensors}.items():
        kind, _, place = name.partition(".")
        if kind == STATE:
            index, _, key = place.partition(".")
            state.setdefault(int(index), {})[key] = _spread(value, held[int(index)])
    return {"state": state, "param_groups": about["groups"]}


def _spread(value: Any, like: torch.Tensor) -> Any:
    """Return a part as the distributed tensor that it was, if it has the shape of a weight's part."""
    if not isinstance(value, torch.Tensor) or not isinstance(like, DTensor) or value.shape != like.to_local().shape:
        return value
    return DTensor.from_local(
        value.to(like.device), like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )


def _trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _shapes(model: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in _trained(model).items()}


def _local(value: torch.Tensor) -> torch.Tensor:
    return (value.to_local() if isinstance(value, DTensor) else value).detach()
