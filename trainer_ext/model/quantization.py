"""Frozen weights of fewer bits under an adapter (QLoRA), by the quantizers of diffusers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers import BitsAndBytesConfig, DiffusionPipeline, PipelineQuantizationConfig, QuantoConfig, TorchAoConfig
from diffusers.quantizers.quantization_config import QuantizationConfigMixin

from ..errors import ConfigError
from ..policy.runner import DENOISER_NAMES

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Quantization:
    """
    A way of storing a denoiser's weights.

    Parameters:
        package (`str`):
            Name of the distribution that does it.
        module (`str`):
            Its module.
        needs_gpu (`bool`):
            True if it computes on GPUs alone.
        build (`Callable[[torch.dtype], Any]`):
            Makes diffusers' configuration, for weights that are computed with in a precision.
        lock (`str`, *optional*):
            File in the module's folder that says that an extension is being compiled, or that this was cut short.
    """

    package: str
    module: str
    needs_gpu: bool
    build: Callable[[torch.dtype], Any]
    lock: str | None = None


def _torchao_int8(dtype: torch.dtype) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig  # type: ignore[import-untyped,unused-ignore]

    return TorchAoConfig(Int8WeightOnlyConfig())


def _nf4(dtype: torch.dtype) -> Any:
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


QUANTIZATIONS: dict[str, Quantization] = {
    "int8": Quantization("torchao", "torchao", False, _torchao_int8),
    "int4": Quantization(
        "optimum-quanto",
        "optimum.quanto",
        False,
        lambda dtype: QuantoConfig(weights_dtype="int4"),
        lock="library/extensions/cpp/build/lock",
    ),
    "nf4": Quantization("bitsandbytes", "bitsandbytes", True, _nf4),
}


def check_quantization(name: str, device: torch.device) -> None:
    """
    Check, before anything is loaded, that weights can be quantised so here.

    Raises:
        [`ConfigError`]: a package is missing, or a GPU.
    """
    chosen = QUANTIZATIONS[name]
    if chosen.needs_gpu and device.type != "cuda":
        raise ConfigError(
            f"quantization is {name!r}, which {chosen.package} computes on GPUs alone, and this run is on {device}; it must be "
            f"one of {', '.join(other for other, each in QUANTIZATIONS.items() if not each.needs_gpu)}."
        )
    if not _is_installed(chosen.module):
        raise ConfigError(
            f"quantization is {name!r}, which needs a package that is not installed: pip install {chosen.package}"
        )
    if chosen.lock is not None:
        _warn_of_lock(chosen.package, chosen.module, chosen.lock)


def _warn_of_lock(package: str, module: str, name: str) -> None:
    """Say what a run may wait for without a word: torch's builder of extensions never takes back the lock of a killed process."""
    spec = find_spec(module)
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        lock = Path(folder) / name
        if lock.exists():
            logger.warning(
                "%s compiles an extension when it is first used, and waits while %s exists. If no other process is compiling it, "
                "one was killed before it had finished, and this run would wait forever: stop it, and delete the file.",
                package,
                lock,
            )


def _is_installed(module: str) -> bool:
    parent, _, _ = module.partition(".")
    return find_spec(parent) is not None and find_spec(module) is not None


def quantization_config(name: str, model: str, dtype: torch.dtype) -> PipelineQuantizationConfig:
    """
    Return the argument with which `from_pretrained` quantises the denoiser of a pipeline.

    Args:
        name (`str`):
            One of `QUANTIZATIONS`.
        model (`str`):
            Hub id or folder of the pipeline.
        dtype (`torch.dtype`):
            Precision to compute in.
    """
    components = DiffusionPipeline.load_config(model)
    denoisers = [component for component in DENOISER_NAMES if component in components]
    built = QUANTIZATIONS[name].build(dtype)
    return PipelineQuantizationConfig(quant_mapping=dict.fromkeys(denoisers, built))


def described_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a denoiser's quantisation as plain values, from its configuration; nothing if it has none."""
    found = config.get("quantization_config")
    if found is None:
        return {}
    values = found if isinstance(found, Mapping) else found.to_dict()
    return {name: plain(value) for name, value in values.items() if value is not None}


def plain(value: Any) -> Any:
    """Return a value of a foreign configuration as JSON can hold it."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return plain(value.to_dict()) if isinstance(value, QuantizationConfigMixin) else str(value)


def as_floats(value: torch.Tensor) -> torch.Tensor:
    """Return weights as they are computed with, in float32: quantised ones are tensors of classes of their own."""
    return (value if type(value) in (torch.Tensor, torch.nn.Parameter) else value.dequantize()).float()
