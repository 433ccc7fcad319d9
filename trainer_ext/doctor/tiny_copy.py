"""A tiny copy of a pipeline: two layers of each kind and random weights, from its configuration files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download
from transformers import AutoConfig

from ..errors import PipelineError
from ..model.loading import DTYPE_ARGUMENT, load_pipeline
from ..policy.runner import find_denoiser
from ..shipped import EMBEDDED, SHIPPED, embedded_model

DEPTH = 2  #: layers of each kind
DEPTHS = frozenset(
    (
        "depth",
        "n_layers",
        "n_refiner_layers",
        "num_decoder_layers",
        "num_hidden_layers",
        "num_layers",
        "num_mmdit_layers",
        "num_refiner_layers",
        "num_single_dit_layers",
        "num_single_layers",
        "num_text_blocks",
        "num_visual_blocks",
    )
)  #: names of the number of layers in configurations
PER_BLOCK = frozenset(("layers_per_block", "transformer_layers_per_block"))
WEIGHTS = ("*.safetensors", "*.bin", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.onnx*", "*.pb", "*.pt", "*.pth")
RANDOMISED_STD = 0.2


def tiny_copy(model: str | Path, dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
    """
    Make a pipeline of the same classes, as wide as the model, but with few layers, and with random weights.

    It calls its denoiser and combines the outputs as the model does, but its images show nothing.

    Args:
        model (`str` or `Path`):
            A Hub id, from which everything except the weights is downloaded, a folder, or `"embedded"`.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            Precision of the weights.

    Raises:
        [`PipelineError`]: there is no such pipeline, or no tiny copy of it can be made.
    """
    folder = _configurations(str(model))
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        parts: dict[str, Any] = {
            name: _module(folder / name, *entry)
            for name, entry in index.items()
            if isinstance(entry, list) and (folder / name / "config.json").is_file() and name != "safety_checker"
        }
        parts |= {name: None for name, entry in index.items() if name == "safety_checker" or entry == [None, None]}
        pipeline = DiffusionPipeline.from_pretrained(folder, **parts, **{DTYPE_ARGUMENT: dtype})
    except Exception as error:  # classes of diffusers and transformers raise many kinds, depending on the files
        raise PipelineError(
            f"No tiny copy of {str(model)!r} could be made: {type(error).__name__}: {error}\nGive a diffusers pipeline whose "
            "parts are classes of diffusers and transformers, or look at the model itself."
        ) from error
    randomise(pipeline.components[find_denoiser(pipeline)])
    return load_pipeline(pipeline.to(dtype))


def _configurations(model: str) -> Path:
    if model in SHIPPED:
        return embedded_model()
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, ignore_patterns=list(WEIGHTS)))
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"No configuration of {model!r} could be found: {error}\nGive the id of a diffusers pipeline on the Hub, a folder "
            f"that holds one, or {EMBEDDED!r}."
        ) from error


def _module(folder: Path, library: str, kind: str) -> torch.nn.Module:
    """Build a model of a pipeline from its folder's configuration."""
    cls: Any = getattr(import_module(library), kind)
    if library == "diffusers":
        return cls.from_config(shrunk(cls.load_config(folder)))
    config = AutoConfig.from_pretrained(folder)
    return cls(type(config).from_dict(shrunk(config.to_dict())))


def shrunk(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with fewer layers, also in the configurations nested in it."""
    return {name: _shrunk(name, value) for name, value in config.items()}


def _shrunk(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return shrunk(value)
    if name in DEPTHS and isinstance(value, int):
        return min(value, DEPTH)
    if name in PER_BLOCK and value is not None:
        return 1 if isinstance(value, int) else [1] * len(value)
    return value[:DEPTH] if name == "layer_types" and value is not None else value


@torch.no_grad()
def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Randomise weights so that prompts and attention affect the output: unit-gain matrices, no zero parameters."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        elif not parameter.any():
            parameter.normal_(std=RANDOMISED_STD)
    return module
