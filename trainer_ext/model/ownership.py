"""Which trainer a denoiser's adapter belongs to, so that a second one neither trains nor overwrites the first one's result."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import PeftAdapterMixin
from diffusers.loaders.lora_base import LoraBaseMixin
from diffusers.utils import recurse_remove_peft_layers
from peft.tuners.tuners_utils import BaseTunerLayer

# Weak on both sides: a mark keeps neither pipelines nor trainers alive. The value is the `TrainedDenoiser`.
_OWNERS: weakref.WeakKeyDictionary[torch.nn.Module, weakref.ref[torch.nn.Module]] = weakref.WeakKeyDictionary()


def claim(denoiser: torch.nn.Module, owner: torch.nn.Module) -> None:
    """Mark a denoiser as the one that `owner` trains, from now on instead of any earlier one."""
    _OWNERS[denoiser] = weakref.ref(owner)


def is_claimed(denoiser: torch.nn.Module) -> bool:
    """Return whether a trainer has marked the denoiser, even if that trainer is gone."""
    return denoiser in _OWNERS


def is_owner(denoiser: torch.nn.Module, owner: torch.nn.Module) -> bool:
    """Return whether the denoiser's last mark is that of `owner`."""
    return is_claimed(denoiser) and _OWNERS[denoiser]() is owner


def adapter_layers(module: torch.nn.Module) -> Iterator[BaseTunerLayer]:
    """Yield PEFT's layers inside a module, whoever added them."""
    return (layer for layer in module.modules() if isinstance(layer, BaseTunerLayer))


def has_learned(denoiser: torch.nn.Module) -> bool:
    """Return whether the adapter changes anything: LoRA starts with B = 0."""
    return any("lora_B" in name and bool(value.any()) for name, value in denoiser.named_parameters())


def remove_adapter(denoiser: torch.nn.Module) -> None:
    """Take all adapter layers off, as `unload_lora_weights` does. The denoiser is then as it was before they were added."""
    recurse_remove_peft_layers(denoiser)
    vars(denoiser).pop("peft_config", None)
    _OWNERS.pop(denoiser, None)


def ways_out(pipeline: DiffusionPipeline, name: str) -> tuple[str, str]:
    """Return the calls that keep an adapter in the weights, and that drop it."""
    if isinstance(pipeline, LoraBaseMixin):
        return "pipeline.fuse_lora() and pipeline.unload_lora_weights()", "pipeline.unload_lora_weights()"
    part = f"pipeline.{name}"
    if isinstance(pipeline.components[name], PeftAdapterMixin):
        return f"{part}.fuse_lora() and {part}.unload_lora()", f"{part}.unload_lora()"
    again = "DiffusionPipeline.from_pretrained(...) for a new pipeline"
    return f"{again} and PeftModel.from_pretrained({part}, FOLDER).merge_and_unload()", again
