"""An adapter's weights and options as files: by their own names in stock LoRA files and in PEFT's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..file_names import PEFT_FILE
from .lora import ADAPTER_NAME, LORA_METADATA_KEYS, PEFT_PREFIX


def adapter_state(network: PeftModel, state: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Return an adapter's weights by the names of stock LoRA files; `state`, if given, has those of a sharded module."""
    if state is not None:
        state = {key.removeprefix("network."): value for key, value in state.items()}
    state = get_peft_model_state_dict(network, state_dict=state)
    return {key.removeprefix(PEFT_PREFIX): value.contiguous() for key, value in state.items()}


def adapter_metadata(network: PeftModel) -> dict[str, Any]:
    """Return an adapter's options, with all their layers."""
    config = network.peft_config[ADAPTER_NAME].to_dict()
    return {key: _plain(config[key]) for key in LORA_METADATA_KEYS}


def save_for_peft(network: PeftModel, name: str, folder: Path, state: Mapping[str, torch.Tensor] | None) -> None:
    """Write a folder for `PeftModel.from_pretrained` and the denoiser, whose name in the pipeline is `name`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{PEFT_PREFIX}{key}": value for key, value in adapter_state(network, state).items()}
    metadata = {f"{name}.{key}": value for key, value in adapter_metadata(network).items()}
    save_file(tensors, folder / PEFT_FILE, {"lora_adapter_metadata": json.dumps(metadata)})
    network.peft_config[ADAPTER_NAME].save_pretrained(str(folder))


def load_adapter(network: PeftModel, name: str, file: Path) -> None:
    """
    Load an adapter from a file of one of both kinds.

    Raises:
        `ValueError`: it has other options or layers.
    """
    _check_metadata(network, name, file)
    state = {
        PEFT_PREFIX + key.removeprefix(PEFT_PREFIX).removeprefix(f"{name}."): value
        for key, value in load_file(file).items()
    }
    result = set_peft_model_state_dict(network, state)
    expected = {f"{PEFT_PREFIX}{key}" for key in adapter_state(network)}
    if result.unexpected_keys or set(state) != expected:
        raise ValueError(f"{file} is an adapter of other layers than those of this run; were the LoRA options changed?")


def _check_metadata(network: PeftModel, name: str, file: Path) -> None:
    with safe_open(file, "pt") as opened:
        saved = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
    here = adapter_metadata(network)
    there = {key: saved.get(f"{name}.{key}", here[key]) for key in here}
    others = [f"{key}={there[key]!r} instead of {here[key]!r}" for key in here if there[key] != here[key]]
    if others:
        raise ValueError(f"{file.name} belongs to an adapter with {', '.join(others)}. Use the run's own LoRA options.")


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: sets become lists."""
    return sorted(value) if isinstance(value, set) else value
