"""An adapter in the forms that other programs load: by the names of Kohya's scripts, or merged into the pipeline's weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils import convert_state_dict_to_kohya
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..errors import ConfigError
from ..file_names import LORA_FILE
from ..runs.atomic import replacing
from ..runs.folder import RunFolder
from .kohya import SOURCE, digest_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DOWN, UP, WEIGHT = ".lora_A", ".lora_B", ".weight"  #: parts of names of tensors
UNSUPPORTED = {"use_dora": "DoRA's magnitudes", "lora_bias": "biases"}


@dataclass(frozen=True)
class Adapter:
    """
    A LoRA file as diffusers saves it.

    Parameters:
        file (`Path`):
            The file.
        tensors (`Mapping[str, torch.Tensor]`):
            `{denoiser}.{layer}.lora_A.weight` and `lora_B.weight`.
        config (`Mapping[str, Any]`):
            Options of PEFT's `LoraConfig` that the file holds; empty if it was saved without.
    """

    file: Path
    tensors: Mapping[str, torch.Tensor]
    config: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path) -> Adapter:
        """Read a file."""
        with safe_open(file, "pt") as opened:
            metadata = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
        return cls(file, load_file(file), {key.partition(".")[2]: value for key, value in metadata.items()})

    @property
    def denoiser(self) -> str:
        """`"unet"` or `"transformer"`."""
        return next(iter(self.tensors)).partition(".")[0]

    def scale(self, layer: str, rank: int) -> float:
        """
        Return the factor by which PEFT multiplies a layer's product of matrices: `lora_alpha / r`, or for rsLoRA
        `lora_alpha / sqrt(r)`.

        Args:
            layer (`str`):
                Name of the layer in the denoiser.
            rank (`int`):
                Its rank, r.
        """
        alpha = self.config.get("lora_alpha", rank)
        if patterns := self.config.get("alpha_pattern"):
            from peft.utils.other import get_pattern_key  # a second

            alpha = patterns.get(get_pattern_key(patterns, layer), alpha)
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def scaled(self) -> dict[str, torch.Tensor]:
        """
        Return the tensors with the factor of each layer multiplied into `lora_B`, for programs that know no `lora_alpha`.

        Raises:
            [`ConfigError`]: the adapter has more than two matrices a layer.
        """
        found = [what for option, what in UNSUPPORTED.items() if self.config.get(option)]
        if found:
            raise ConfigError(
                f"{self.file} has {' and '.join(found)}, which other programs would leave out. Export it as 'merged', or load it "
                "with diffusers."
            )
        ranks = {_layer(name): len(tensor) for name, tensor in self.tensors.items() if DOWN in name}
        return {
            name: tensor * self.scale(_layer(name), ranks[_layer(name)]) if UP in name else tensor
            for name, tensor in self.tensors.items()
        }


def _layer(name: str) -> str:
    """Return the layer's name in the denoiser, of a tensor's name."""
    return name.partition(".")[2].rpartition(".lora_")[0]


def write_kohya(adapter: Adapter, file: Path) -> None:
    """
    Write an adapter by the names that ComfyUI, A1111, Forge, InvokeAI and SD.Next know.

    For a UNet these are Kohya's: `lora_unet_down_blocks_0_..._to_q.lora_down.weight`, with an `alpha` that equals the rank. They
    know transformers by the names of diffusers, so those stay. In both, strength 1 is that of training.

    Args:
        adapter ([`Adapter`]):
            The adapter.
        file (`Path`):
            The file to write.

    Raises:
        [`ConfigError`]: as [`Adapter.scaled`].
    """
    tensors = adapter.scaled()
    if adapter.denoiser == "unet":
        tensors = convert_state_dict_to_kohya(tensors)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as place:
        metadata = {SOURCE: digest_of(adapter.file)}  # only one: safetensors writes several in any order
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, place, metadata)


def write_merged(adapter: Adapter, pipeline: DiffusionPipeline, folder: Path) -> None:
    """
    Write a whole pipeline whose weights contain the adapter, for `DiffusionPipeline.from_pretrained`.

    Args:
        adapter ([`Adapter`]):
            The adapter.
        pipeline (`DiffusionPipeline`):
            The pipeline that it was trained on. It is changed.
        folder (`Path`):
            The folder to write, which must not hold anything.

    Raises:
        [`ConfigError`]: the folder holds something, or the adapter does not fit the pipeline.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; give another --output for the merged pipeline.")
    _check_fit(adapter, pipeline)
    pipeline.load_lora_weights(str(adapter.file.parent), weight_name=adapter.file.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    with replacing(folder) as place:
        pipeline.save_pretrained(place)


def _check_fit(adapter: Adapter, pipeline: DiffusionPipeline) -> None:
    """Check that each layer of an adapter is in the pipeline and has its width: diffusers would leave out the others."""
    denoiser = pipeline.components.get(adapter.denoiser)
    widths = {} if denoiser is None else {name: value.shape[0] for name, value in denoiser.named_parameters()}
    for name, tensor in adapter.tensors.items():
        if UP in name and widths.get(f"{_layer(name)}{WEIGHT}") != tensor.shape[0]:
            raise ConfigError(
                f"{adapter.file} does not fit {type(pipeline).__name__}: its {adapter.denoiser} has no layer {_layer(name)!r} "
                f"with {tensor.shape[0]} outputs. Name the pipeline that it was trained on with --model_name_or_path."
            )


def adapter_of(path: Path) -> Adapter:
    """
    Return the newest adapter of a run.

    Args:
        path (`Path`):
            A run's folder, a checkpoint, any folder with [`LORA_FILE`], or such a file.

    Raises:
        [`ConfigError`]: there is none.
    """
    folders = [] if path.is_file() else RunFolder(path).weights()
    for file in (path, *(folder / LORA_FILE for folder in folders)):
        if file.is_file():
            return Adapter.read(file)
    raise ConfigError(
        f"{path} holds no {LORA_FILE}. Give the output folder of a finished run, or of one that has a checkpoint. Runs with "
        "full_finetuning, and pipelines without load_lora_weights, have none."
    )
