"""Checks for runs in which each process holds only a share of the weights."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.fsdp import StateDictType

from ..errors import ConfigError
from ..options import DDPOOptions
from .shards import is_sharded

KINDS = (StateDictType.FULL_STATE_DICT, StateDictType.SHARDED_STATE_DICT)


def check_sharding(
    accelerator: Accelerator, options: DDPOOptions, keeps_old_policy: bool = False, loads_best: bool = False
) -> None:
    """
    Refuse options with which sharded training would be wrong, save nothing, or hang.

    Raises:
        [`ConfigError`]: DeepSpeed; FSDP's first version; with FSDP, averages of the weights or pictures, and full fine-tuning
            unless each process saves its own share.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ConfigError(
            "DeepSpeed is not supported: its engine makes an update in every backward pass, and here an update has one for each "
            "denoising step. Use DDP, or FSDP2 for a model that does not fit on one device."
        )
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2 or plugin.state_dict_type not in KINDS:
        raise ConfigError(
            f"FSDP has version {plugin.fsdp_version} and state_dict_type {plugin.state_dict_type.name}; it must have version 2 "
            f"and {' or '.join(kind.name for kind in KINDS)} (fsdp_version and fsdp_state_dict_type in accelerate's "
            "configuration)."
        )
    whole = not is_sharded(accelerator)
    refused = {
        "full_finetuning": (
            options.full_finetuning and whole,
            "False, or the state_dict_type SHARDED_STATE_DICT: in one process, the weights and the optimizer's state of a model "
            "that needs FSDP have no room",
        ),
        "load_best_model_at_end": (
            options.full_finetuning and loads_best,
            "False with full_finetuning: checkpoints hold shares, and no whole pipeline",
        ),
        "ema_decay": (options.ema_decay, "None: it would average weights that are not trained"),
        "algorithm": (
            options.algorithm if keeps_old_policy else None,
            "one without an old policy, such as 'ddpo_is': it would be swapped in for weights that are not there",
        ),
        **{
            name: (vars(options)[name], "None: the reference would be swapped in for weights that are not there")
            for name in ("reference_reset", "reference_reset_kl")
        },
        "num_sample_images": (
            options.num_sample_images,
            "0: one process draws them, and has only a share of the model",
        ),
    }
    for name, (value, allowed) in refused.items():
        if value:
            raise ConfigError(f"{name} is {value}, and the model is sharded by FSDP; it must be {allowed}.")


def check_shares(kind: DistributedType, num_rows: int, num_processes: int) -> None:
    """
    Refuse evaluation on shares of different sizes if a forward pass needs all processes.

    Raises:
        [`ConfigError`]: with FSDP, the number of rows is not a multiple of the number of processes.
    """
    if kind == DistributedType.FSDP and num_rows % num_processes:
        raise ConfigError(
            f"eval_dataset has {num_rows} rows for {num_processes} processes, and the model is sharded by FSDP; the number of "
            "rows must be a multiple of the number of processes."
        )
