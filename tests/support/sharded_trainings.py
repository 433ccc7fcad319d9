"""
What processes do that share a model by FSDP2: in the launch of two_processes.py, or in one of their own.

    sharded_trainings.py FOLDER

reads the pipeline FOLDER/model and writes what this process saw to FOLDER/sharded-{process}.pt.
"""

import contextlib
import gc
import os
import sys
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from support import several_trainings as trainings
from support.several_trainings import PROCESS, SEVERAL, error_of, make_trainer, train
from trainer_ext.loop.shards import share_file
from trainer_ext.runs.manifest import MANIFEST

CONFIG = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "transformer_layer_cls_to_wrap": ["BasicTransformerBlock", "ResnetBlock2D"],
    "state_dict_type": "FULL_STATE_DICT",
}
IN_SHARES = {"state_dict_type": "SHARDED_STATE_DICT"}

ONE_UPDATE = trainings.TRAININGS["one update"]
KL = {**trainings.TRAININGS["kl"], "save_strategy": "steps", "save_steps": 3}

#: All weights, of which each process saves its own share, after each of two updates.
ALL_WEIGHTS = {
    "full_finetuning": True,
    "num_train_epochs": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": None,
    "learning_rate": 1e-3,
}

REFUSED = {
    "full_finetuning": {"full_finetuning": True},
    "ema_decay": {"ema_decay": 0.5},
    "num_sample_images": {"num_sample_images": 2},
    "reference_reset": {"beta": 1.0, "reference_reset": 1},
}
BEST = {"load_best_model_at_end": True, "metric_for_best_model": "reward", "eval_strategy": "steps", "eval_steps": 1}


@contextlib.contextmanager
def sharded(**config):
    """FSDP2 on two CPUs. accelerate has it for accelerators only, so it is told that these are."""
    original = PartialState.__init__

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = init
    SEVERAL.update(fsdp="full_shard", fsdp_config={**CONFIG, **config})
    try:
        yield
    finally:
        PartialState.__init__ = original
        del SEVERAL["fsdp"], SEVERAL["fsdp_config"]
        os.environ.pop("ACCELERATE_USE_FSDP", None)  # which accelerate leaves for whatever is made next


def train_some(folder):
    """Return what this process sees of one training of each kind, and of what is refused."""
    with sharded():
        seen = {"one update": train(folder, "one update, sharded", **ONE_UPDATE)}
        seen["uneven"] = error_of(make_trainer(folder, "refused").evaluate)
        for name, options in REFUSED.items():
            seen[name] = error_of(partial(make_trainer, folder, "refused", **options))
    with sharded(**IN_SHARES):
        seen["all weights"] = train(folder, "all weights", **ALL_WEIGHTS)
        cut_short(folder / "all weights" / "checkpoint-2")
        seen["all weights, resumed"] = train(folder, "all weights", resume=True, **ALL_WEIGHTS)
        seen["load_best_model_at_end"] = error_of(partial(make_trainer, folder, "refused", **ALL_WEIGHTS, **BEST))
    return seen


def train_with_divergence(folder):
    """Return what this process sees of an adapter with the KL divergence, saved whole and in shares, and of resuming both."""
    seen = {}
    for name, config in (("kl, sharded", {}), ("kl in shares", IN_SHARES)):
        with sharded(**config):
            seen[name] = train(folder, name, **KL)
            seen[f"{name}, resumed"] = train(folder, name, resume=str(folder / name / "checkpoint-3"), **KL)
    return seen


def cut_short(checkpoint):
    """Leave what there is of a checkpoint where process 1 is killed before it writes its share."""
    if PROCESS == 0:
        (checkpoint / MANIFEST).unlink()
        share_file(checkpoint, 1, 2).unlink()
    PartialState().wait_for_everyone()


def main(folder):
    torch.set_num_threads(1)
    gc.freeze()
    torch.save(train_with_divergence(folder), folder / f"sharded-{PROCESS}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
