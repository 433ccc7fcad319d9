"""From a model's name and the run's options to a policy and the module that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig

from ddpo_plugins import GuidanceSpec

from ..config import DDPOConfig
from ..errors import ConfigError, PipelineError
from ..learning.batches import pairs_at_once
from ..loop.optimizer import check_optimizer
from ..policy.dry_run import first_calls
from ..policy.guidance.candidates import GuidanceRule, resolve_rule
from ..policy.pipeline import LogProbPipeline
from ..policy.recording.calls import DenoiserCall
from ..policy.runner import find_denoiser
from ..policy.self_check import check_unchanged
from .denoiser import TrainedDenoiser
from .handover import given_back_on_error, remember
from .inspection import check_pipeline
from .loading import decode_in_parts, open_pipeline, prepare_pipeline
from .lora import complete_lora_config
from .offloading import offload
from .ownership import remove_adapter
from .quantization import check_quantization


def checked_options(
    args: Any,
    peft_config: LoraConfig | None,
    guidance: GuidanceRule | None,
    guidance_rules: Sequence[GuidanceSpec] | None,
) -> DDPOConfig:
    """
    Check options of the model, before anything is loaded, and return the run's options: the defaults if there are none.

    Raises:
        [`ConfigError`]: `args` or `peft_config` are of another kind, there is no such optimizer, weights cannot be quantised so
            here, two guidance rules are given, or an adapter for full fine-tuning.
        [`GuidanceError`]: `args` name a guidance rule that does not exist.
    """
    if args is not None and not isinstance(args, DDPOConfig):
        raise ConfigError(
            f"args is a {type(args).__name__}; give a DDPOConfig, which takes the same options and DDPO's own."
        )
    args = args or DDPOConfig()
    check_optimizer(args)
    if args.quantization is not None:
        check_quantization(args.quantization, args.device)
    if guidance is not None and args.guidance is not None:
        raise ConfigError("guidance is given both to DDPOTrainer and in its args; give only one of them.")
    resolve_rule(guidance or args.guidance, guidance_rules or ())
    if args.full_finetuning and peft_config is not None:
        raise ConfigError(
            "full_finetuning trains all weights, and peft_config asks for an adapter; give only one of them."
        )
    if peft_config is not None and not isinstance(peft_config, LoraConfig):
        raise ConfigError(f"peft_config is a {type(peft_config).__name__}; it must be a peft.LoraConfig.")
    return args


def build_policy(
    model: str | Path | DiffusionPipeline,
    args: DDPOConfig,
    guidance: GuidanceRule | None = None,
    guidance_rules: Sequence[GuidanceSpec] | None = None,
    sampler: str | None = None,
) -> LogProbPipeline:
    """
    Load a pipeline to the run's device and make a policy of it.

    Args:
        model (`str`, `Path` or `DiffusionPipeline`):
            A Hub id, a folder, `"embedded"`, `"embedded-posters"`, or a pipeline.
        args ([`DDPOConfig`]):
            The run's options.
        guidance (`Callable`, *optional*):
            A guidance rule instead of the one that `args` names.
        guidance_rules (`Sequence[GuidanceSpec]`, *optional*):
            Rules that plugins offer.
        sampler (`str`, *optional*):
            The algorithm's own sampler, which applies where `args` name none.

    Raises:
        [`PipelineError`], [`GuidanceError`]: the pipeline cannot be loaded, is in a state in which it cannot be trained, or
            cannot be recorded and replayed.
        [`ConfigError`]: `rows_per_forward` is less than one step of one image takes, or the VAE cannot decode in parts.
    """
    guidance_rules = guidance_rules or ()
    rule = resolve_rule(guidance or args.guidance, guidance_rules)
    pipeline = open_pipeline(model, args.weights_dtype, args.quantization)
    check_pipeline(pipeline, args.full_finetuning)
    if pipeline is model:
        remember(pipeline)
    with given_back_on_error(pipeline):
        _place(prepare_pipeline(pipeline), args)
        decode_in_parts(pipeline, args.vae_slicing, args.vae_tiling)
        options = {**args.policy_kwargs, "sampler": args.sampler or sampler}
        policy = LogProbPipeline(pipeline, **options, guidance=rule, guidance_rules=guidance_rules)
        pairs_at_once(policy, args.rows_per_forward, args.per_device_train_batch_size)  # or not one fits
    return policy


def _place(pipeline: DiffusionPipeline, args: DDPOConfig) -> None:
    """Bring a pipeline to the run's device, or only its denoiser."""
    if not args.offload_components:
        pipeline.to(args.device)
        return
    denoiser = find_denoiser(pipeline)
    for name, part in pipeline.components.items():
        if name == denoiser:
            part.to(args.device)
        elif isinstance(part, torch.nn.Module):
            offload(part, args.device)


def build_denoiser(policy: LogProbPipeline, args: DDPOConfig, peft_config: LoraConfig | None = None) -> TrainedDenoiser:
    """
    Make a pipeline's denoiser trainable: by an adapter on frozen weights, or all its weights.

    The other components stay as they came. They are called without gradients, and PyTorch's `linear` takes another kernel for a
    frozen weight: a frozen VAE would not round as the stock pipeline's does.

    Args:
        policy ([`LogProbPipeline`]):
            The policy whose denoiser is trained.
        args ([`DDPOConfig`]):
            The run's options.
        peft_config (`LoraConfig`, *optional*):
            The adapter; by default rank 4 on the attention projections.

    Raises:
        [`ConfigError`]: no adapter fits the denoiser.
        [`PipelineError`]: the adapter changes images before any training.
    """
    with given_back_on_error(policy.pipeline):
        adapter = None if args.full_finetuning else complete_lora_config(peft_config, policy.denoiser)
        policy.denoiser.requires_grad_(False)
        calls = first_calls(policy.runner) if adapter is not None else []
        denoiser = TrainedDenoiser(policy.denoiser, policy.denoiser_name, adapter, keep_reference=args.beta > 0)
        _check_unchanged(calls, denoiser)
    return denoiser


def _check_unchanged(calls: Sequence[DenoiserCall], denoiser: TrainedDenoiser) -> None:
    """Check that the adapter changes nothing, or take it off again."""
    try:
        check_unchanged(calls, denoiser)
    except PipelineError:
        remove_adapter(denoiser.base)
        raise
