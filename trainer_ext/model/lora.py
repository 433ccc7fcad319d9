"""The adapter's configuration, and the names of its files."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import torch
from diffusers import ModelMixin
from peft import LoraConfig, PeftModel, get_peft_model

from ..errors import ConfigError

ADAPTER_NAME = "default"  #: of the layers that a trainer adds

PEFT_PREFIX = "base_model.model."

LORA_METADATA_KEYS = (
    "r",
    "lora_alpha",
    "target_modules",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "lora_bias",
)

# These start by changing the base weights, so that the adapter alone would not reproduce the model.
BASE_CHANGING_INITS = ("pissa", "olora", "loftq", "corda")

# Names of the attention projections in denoisers of diffusers; most have the first.
ATTENTION_PROJECTIONS = (
    ("to_q", "to_k", "to_v", "to_out.0"),
    ("to_query", "to_key", "to_value", "self_attention.out_layer", "cross_attention.out_layer"),
    ("to_q", "add_k_proj", "add_v_proj", "to_out.0"),
)


def default_lora_config(denoiser: torch.nn.Module) -> LoraConfig:
    """
    Return the adapter of the paper's authors: rank 4 on the attention projections of `denoiser`.

    Raises:
        [`ConfigError`]: it has none with a known name.
    """
    modules = [name for name, _ in denoiser.named_modules()]
    for projections in ATTENTION_PROJECTIONS:
        if all(any(module.endswith(f".{name}") for module in modules) for name in projections):
            return LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=list(projections))
    raise ConfigError(
        f"{type(denoiser).__name__} has no attention projections by the names {', '.join(ATTENTION_PROJECTIONS[0])}. Pass "
        "peft_config=LoraConfig(target_modules=...) with its own names (--lora_target_modules on the command line). "
        f"{describe_linear_layers(denoiser)}"
    )


def describe_linear_layers(denoiser: torch.nn.Module) -> str:
    """Return a sentence that names the linear layers, the most frequent first."""
    linear = (name for name, module in denoiser.named_modules() if isinstance(module, torch.nn.Linear))
    names = Counter(re.sub(r"^.*?([^.\d][^.]*(\.\d+)*)$", r"\1", name) for name in linear)
    return f"Its linear layers are {', '.join(f'{name} ({number} times)' for name, number in names.most_common(12))}."


def complete_lora_config(config: LoraConfig | None, denoiser: torch.nn.Module) -> LoraConfig:
    """Return the default adapter where there is none, and its layers where `config` names none."""
    if config is not None and config.target_modules is not None:
        return config
    default = default_lora_config(denoiser)
    return default if config is None else dataclasses.replace(config, target_modules=default.target_modules)


def check_lora_config(config: LoraConfig) -> None:
    """
    Refuse adapters that cannot be trained on-policy or saved alone.

    Raises:
        [`ConfigError`]: dropout, or an initialisation that changes the base weights.
    """
    if config.lora_dropout:
        raise ConfigError(
            f"lora_dropout is {config.lora_dropout}; it must be 0: with dropout the policy that is trained is not the one "
            "that sampled, and ratios are off before the first update."
        )
    init = str(config.init_lora_weights).lower()
    if init.startswith(BASE_CHANGING_INITS):
        raise ConfigError(
            f"init_lora_weights={config.init_lora_weights!r} changes the base weights, so the saved adapter would not "
            "reproduce the model. Use 'gaussian' or True."
        )


def add_adapter(base: ModelMixin, config: LoraConfig) -> PeftModel:
    """
    Add an adapter to a denoiser, in place.

    Raises:
        [`ConfigError`]: as [`check_lora_config`], or it fits no layer.
    """
    check_lora_config(config)
    try:
        return get_peft_model(base, config, ADAPTER_NAME)
    except ValueError as error:  # no layer has such a name, or it is of a kind that PEFT does not know
        raise ConfigError(
            f"No adapter fits {type(base).__name__}: {error} Pass peft_config=LoraConfig(target_modules=...) with other names "
            "(--lora_target_modules on the command line), or leave them out for its attention projections. "
            f"{describe_linear_layers(base)}"
        ) from error
