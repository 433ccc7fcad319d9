"""What makes a run: its options, prompts, packages and device, and the command that started it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from datasets import Dataset, Value

from ddpo_plugins.masking import masked_command

from ...columns import values_of
from ...config import DDPOConfig
from ...model.denoiser import TrainedDenoiser
from ...model.quantization import as_floats, described_quantization

PACKAGES = ("ddpo-plugins", "torch", "diffusers", "transformers", "peft", "accelerate", "datasets", "numpy", "pillow")
# Options that change no result; those that are recorded elsewhere: weights with their rewards, the device; and our defaults.
NOT_RECORDED = """
reward_weights detector_weights use_cpu seed
output_dir num_sample_images sample_every sample_defaults keep_images keep_images_gb overlap_rewards reward_timeout stop_when
disable_tqdm report_to run_name project trackio_space_id log_level log_level_replica log_on_each_node
logging_dir logging_first_step logging_nan_inf_filter logging_steps logging_strategy include_num_input_tokens_seen
save_steps save_strategy save_total_limit save_on_each_node enable_jit_checkpoint overwrite_output_dir
resume_from_checkpoint do_train do_eval do_predict debug skip_memory_metrics
push_to_hub hub_model_id hub_strategy hub_token hub_private_repo hub_always_push hub_revision
push_to_hub_model_id push_to_hub_organization push_to_hub_token
ddp_backend ddp_timeout ddp_find_unused_parameters ddp_broadcast_buffers local_rank
dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
remove_unused_columns detector_every rollout_on_disk
"""
FINGERPRINT_LENGTH = 16  #: hexadecimal digits
VALUES = 8  #: of each weight; all of them would take seconds


@dataclass(frozen=True)
class Launch:
    """
    How the command line names what the trainer gets as objects.

    Parameters:
        command (`str`):
            The command, without secrets; by default that of this process.
        preset (`Sequence[str]`):
            The presets that set options.
        prompts (`str`, *optional*):
            Name of the training prompts.
    """

    command: str = field(default_factory=lambda: masked_command(sys.argv))
    preset: Sequence[str] = ()
    prompts: str | None = None


_launch: ContextVar[Launch | None] = ContextVar("launch", default=None)


@contextlib.contextmanager
def launched(launch: Launch) -> Iterator[None]:
    """Context manager in which trainers are built: they record how they were launched."""
    token = _launch.set(launch)
    try:
        yield
    finally:
        _launch.reset(token)


def current_launch() -> Launch:
    """Return how the trainer that is being built was launched."""
    return _launch.get() or Launch()


def changed_options(args: DDPOConfig) -> dict[str, Any]:
    """Return the options that affect a run and are not the defaults, and its seed."""
    changed = {name: value for name, value in args.changed.items() if name not in NOT_RECORDED.split()}
    return {"seed": args.seed, **changed}


def describe_prompts(dataset: Dataset, name: str | None = None) -> dict[str, Any]:
    """Return name, number and fingerprint of prompts. The fingerprint is of their texts and their plain columns, in order."""
    plain = sorted(name for name, kind in dataset.features.items() if isinstance(kind, Value))
    content = json.dumps({column: values_of(dataset, column) for column in plain}, default=str)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()[:FINGERPRINT_LENGTH]
    return {**({} if name is None else {"name": name}), "rows": len(dataset), "fingerprint": fingerprint}


def describe_eval_prompts(dataset: Dataset | Mapping[str, Dataset] | None) -> dict[str, Any]:
    """Return the description of each evaluation's prompts by name."""
    each = dataset if isinstance(dataset, Mapping) else {} if dataset is None else {"eval": dataset}
    return {name: describe_prompts(prompts) for name, prompts in each.items()}


def describe_base(denoiser: TrainedDenoiser) -> dict[str, Any]:
    """Return precision, quantisation and fingerprint of the denoiser's frozen weights: of the first values of each."""
    digest, dtypes = hashlib.sha256(), set()
    for name, value in denoiser.base.named_parameters():
        if not value.requires_grad and "lora_" not in name:
            values = as_floats(value.detach()).flatten()[:VALUES].tolist()
            digest.update(f"{tuple(value.shape)}{values}".encode())
            dtypes.add(str(value.dtype).removeprefix("torch."))
    if not dtypes:
        return {}
    quantized = described_quantization(dict(denoiser.base.config))
    weights = {"dtype": ", ".join(sorted(dtypes)), "fingerprint": digest.hexdigest()[:FINGERPRINT_LENGTH]}
    return weights | ({"quantization": quantized} if quantized else {})


def describe_device(device: torch.device) -> str:
    """Return the kind of a device, and which one it is."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that affect results."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # some are built under another name
            continue
    return found
