"""
What two processes do that torchrun launches, once for all tests in `distributed`.

    two_processes.py FOLDER PORT PORT

reads the pipeline FOLDER/model. First each forks a child; the two children train until one fails (FOLDER/failed-{process}.log).
Two others train until one is killed (FOLDER/lost-{process}.log). Then come the places, the trainings, and FOLDER/{process}.pt, which has what this process saw of them. Last is the command
line, which trains in FOLDER/command line until it is interrupted.
"""

import gc
import os
import sys
from pathlib import Path

import torch

from support import several_trainings as trainings
from support import sharded_trainings
from support.places import meet
from support.trainers import TINY, as_flags
from trainer_ext.cli import main as ddpo

PROCESS = trainings.PROCESS


def in_children(action, port, log):
    """
    Do something in children, which meet at a port of their own. The child ends as any Python program does; in the parent, return
    its exit status (negative: the signal).
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(MASTER_PORT=port, TORCHELASTIC_USE_AGENT_STORE="False")
    action()
    sys.exit(0)


def command_line(folder):
    """`ddpo train` until Ctrl-C."""
    options = {
        **TINY,
        "reward_funcs": "jpeg_compressibility",
        "num_images_per_prompt": 2,
        "per_device_train_batch_size": 2,
        "skip_last_steps": 0,
        "num_train_epochs": 1000,
        "ddp_backend": "gloo",
        "output_dir": folder / "command line",
    }
    return ddpo(["train", *as_flags(options)])


def main(folder, port, other_port):
    torch.set_num_threads(1)
    gc.freeze()  # every training collects garbage, and most of what there is are modules
    failed = in_children(lambda: trainings.fail_and_end(folder), port, folder / f"failed-{PROCESS}.log")
    lost = in_children(lambda: trainings.lose_one(folder), other_port, folder / f"lost-{PROCESS}.log")
    seen = {
        "exit status of the child": failed,
        "exit status where one is killed": lost,
        "places": meet(),
        **trainings.train_all(folder),
        "sharded": sharded_trainings.train_some(folder),
    }
    torch.save(seen, folder / f"{PROCESS}.pt")
    return command_line(folder)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
