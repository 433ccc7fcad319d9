"""Adapters of trained runs in a stock pipeline."""

from __future__ import annotations

from collections.abc import Callable

from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LoraBaseMixin
from peft import PeftModel

from ..errors import ConfigError
from ..file_names import LORA_FILE, PEFT_FILE
from ..policy.runner import find_denoiser


def load_adapter(pipeline: DiffusionPipeline, adapter: str) -> Callable[[bool], None]:
    """
    Load a run's adapter as users of diffusers do, and return a function that switches it on and off.

    Args:
        pipeline (`DiffusionPipeline`):
            Loads it by `load_lora_weights`; if it has no such method, its denoiser does by `PeftModel.from_pretrained`.
        adapter (`str`):
            A folder or Hub id.

    Raises:
        [`ConfigError`]: there is no adapter for this pipeline.
    """
    by_diffusers = isinstance(pipeline, LoraBaseMixin)
    try:
        return _load_lora(pipeline, adapter) if by_diffusers else _load_peft(pipeline, adapter)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"The adapter {adapter!r} does not load: {error}. Give a folder or Hub id that holds "
            f"{LORA_FILE if by_diffusers else PEFT_FILE}."
        ) from error


def _load_lora(pipeline: DiffusionPipeline, adapter: str) -> Callable[[bool], None]:
    pipeline.load_lora_weights(adapter, weight_name=LORA_FILE)
    return lambda on: pipeline.enable_lora() if on else pipeline.disable_lora()


def _load_peft(pipeline: DiffusionPipeline, adapter: str) -> Callable[[bool], None]:
    denoiser = pipeline.components[find_denoiser(pipeline)]
    layers = PeftModel.from_pretrained(denoiser, adapter).base_model  # injected in place, so that the pipeline has it
    return lambda on: layers.enable_adapter_layers() if on else layers.disable_adapter_layers()
