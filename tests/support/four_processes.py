"""
What four processes do that torchrun launches, once for the tests in `distributed/test_four_processes.py`.

    four_processes.py FOLDER PORT

reads the pipeline FOLDER/model. Each process trains; then it forks a child, and the four children train another run until one of
them is killed in a rollout (FOLDER/killed-{process}.log). The four processes resume that run, as a job that is queued again does.
FOLDER/four-{process}.pt has what this process saw.
"""

import gc
import sys
from pathlib import Path

import torch

from support import several_trainings as trainings
from support.two_processes import in_children

PROCESS = trainings.PROCESS
OF_FOUR = {"gradient_accumulation_steps": 1, "rollout_batch_size": 1}  # two images each, two updates on a rollout
CHECKPOINTS = {**OF_FOUR, "save_strategy": "steps", "save_steps": 1, "save_total_limit": None}
TRAININGS = {"four": OF_FOUR, "four, kl": {**OF_FOUR, "beta": 10.0}, "four, ema": {**OF_FOUR, "ema_decay": 0.5}}


def be_killed_in_the_second_rollout(folder):
    """Process 3 is killed, as by a node that fails."""
    reward = trainings.InBatch(trainings.be_killed, 3, batch=3)
    trainings.make_trainer(folder, "four, killed", named(reward), **CHECKPOINTS).train()


def named(function):
    """The same reward to a run that resumes, whichever of its functions is called."""
    origin = trainings.Provenance.of_function(trainings.brightness)
    return trainings.RewardFunction("brightness", function, provenance=origin)


def main(folder, port):
    torch.set_num_threads(1)
    gc.freeze()
    killed = in_children(lambda: be_killed_in_the_second_rollout(folder), port, folder / f"killed-{PROCESS}.log")
    left = sorted(path.name for path in (folder / "four, killed").glob("checkpoint-*"))
    seen = {name: trainings.train(folder, name, **options) for name, options in TRAININGS.items()}
    resumed = trainings.train(folder, "four, killed", resume=True, reward=named(trainings.brightness), **CHECKPOINTS)
    torch.save({**seen, "killed": killed, "left": left, "resumed": resumed}, folder / f"four-{PROCESS}.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
