"""
Several trainings one after the other, and what each process sees of them: test_two_processes.py runs this by torchrun.

    several_trainings.py FOLDER

reads the pipeline FOLDER/model and writes FOLDER/{process}.pt. Its last training fails, and so does the command.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback

from trainer_ext import DDPOConfig, DDPOTrainer

PROCESS = int(os.environ.get("RANK", "0"))
PROMPTS = Dataset.from_dict({"prompt": ["a cat", "a dog"]})  # few, so that each is sampled by both processes
FIVE_PROMPTS = Dataset.from_dict({"prompt": ["a cat", "a dog", "a lion", "a bear", "a fox"]})

# Two updates on each of two rollouts, in two processes; the prompts' own statistics from the first reward on.
OPTIONS = {
    "num_inference_steps": 4,
    "guidance_scale": 2.0,
    "num_images_per_rollout": 8,
    "num_images_per_prompt": 2,
    "rollout_batch_size": 2,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "stat_min_count": 2,
    "learning_rate": 1e-2,
    "clip_range": 1e-2,
    "num_train_epochs": 2,
    "num_sample_images": 0,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}
SEVERAL = {"ddp_backend": "gloo", "ddp_timeout": 60} if "RANK" in os.environ else {}

# One update on a rollout, of the same images however many processes there are; SGD, which a wrong factor shows in.
TWICE = {"per_device_train_batch_size": 2, "optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 1.0}

TRAININGS = {
    "ddpo_is": {},
    "ddpo_sf": {"algorithm": "ddpo_sf", "per_device_train_batch_size": 2},
    "kl": {"beta": 10.0},
    "ema": {"ema_decay": 0.5},
    # the best image of the rollout: one process has it, the other has none
    "sparse_rwr": {"algorithm": "sparse_rwr", "advantages": "batch", "rwr_quantile": 0.99},
}


def brightness(images, prompts, **columns):
    return [float(np.asarray(image).mean()) for image in images]


def slow_in_one(images, prompts, **columns):
    if PROCESS == 1:
        time.sleep(0.5)
    return brightness(images, prompts)


class InSecondBatch:
    """A reward that does something else in its second batch on one process."""

    def __init__(self, process, act):
        self.process = process
        self.act = act
        self.batches = 0

    def __call__(self, images, prompts, **columns):
        self.batches += 1
        rewards = brightness(images, prompts)
        return self.act(rewards) if (self.process, 2) == (PROCESS, self.batches) else rewards


def fail(rewards):
    raise OSError("the reward's server is gone")


def not_a_number(rewards):
    return [float("nan"), *rewards[1:]]


def press_ctrl_c(rewards):
    signal.raise_signal(signal.SIGINT)
    return rewards


class Watch(TrainerCallback):
    """Notes the trained weights after every update, as one vector each."""

    def __init__(self):
        self.weights = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(trained_weights(model))


class Interrupt(TrainerCallback):
    """Presses Ctrl-C in the process that has the higher number, after some updates or in the middle of the next."""

    def __init__(self, step, in_the_middle=False):
        self.step = step
        self.in_the_middle = in_the_middle

    def on_step_end(self, args, state, control, **kwargs):
        self._press(state, not self.in_the_middle)

    def on_substep_end(self, args, state, control, **kwargs):
        self._press(state, self.in_the_middle)

    def _press(self, state, here):
        if here and PROCESS == 1 and state.global_step == self.step:
            signal.raise_signal(signal.SIGINT)


class InterruptReward:
    """Presses Ctrl-C in one process, in the middle of the second rollout."""

    __name__ = "brightness"

    def __init__(self):
        self.reward = InSecondBatch(1, press_ctrl_c)
        self.reward.batches = -2  # of two batches a rollout

    def __call__(self, images, prompts, **columns):
        return self.reward(images, prompts)


INTERRUPTED = {  # and after which update it stops
    "after an update": ({"callbacks": [Interrupt(3)]}, 3),
    "before the first update on a rollout": ({"callbacks": [Interrupt(2, in_the_middle=True)]}, 2),
    "in a rollout": ({"reward": InterruptReward()}, 2),
}


def trained_weights(model):
    return torch.cat([value.detach().flatten() for value in model.parameters() if value.requires_grad]).clone()


def make_trainer(folder, name, reward=brightness, callbacks=(), **options):
    torch.manual_seed(0)
    config = DDPOConfig(output_dir=str(folder / name), **{**OPTIONS, **SEVERAL, **options})
    return DDPOTrainer(str(folder / "model"), reward, config, PROMPTS, FIVE_PROMPTS, list(callbacks))


def train(folder, name, resume=None, **options):
    """Train and return what was seen: `before` and `after` each update, `weights` of the images, the evaluation."""
    watch = Watch()
    options["callbacks"] = [watch, *options.get("callbacks", [])]
    trainer = make_trainer(folder, name, **options)
    before = trained_weights(trainer.model)
    evaluated, interrupted = {}, False
    try:
        trainer.train(resume_from_checkpoint=resume)
        evaluated = trainer.evaluate()
    except KeyboardInterrupt:
        interrupted = True
    trainer.save_model(str(folder / name / f"saved-by-{PROCESS}"))
    with trainer._evaluated_weights():
        averaged = trained_weights(trainer.model)
    rollout = trainer._rollout
    return {
        "before": before,
        "after": watch.weights,
        "averaged": averaged,
        "weights": None if rollout is None else rollout.weights,
        "evaluated": evaluated,
        "logs": trainer.state.log_history,
        "interrupted": interrupted,
        "steps": trainer.state.global_step,
    }


def error_of(action):
    """Return the type and text of the error and the seconds that it took."""
    start = time.monotonic()
    try:
        action()
    except Exception as error:
        return type(error).__name__, str(error), time.monotonic() - start
    return None


def main(folder):
    torch.set_num_threads(1)
    seen = {name: train(folder, name, **options) for name, options in TRAININGS.items()}
    seen["twice"] = train(folder, "twice", **TWICE, num_train_epochs=1)
    seen["slow"] = train(folder, "slow", reward=slow_in_one)
    for name, (options, _) in INTERRUPTED.items():
        seen[name] = train(folder, name, **options)
        seen[f"{name}: files"] = sorted(path.name for path in (folder / name).glob("checkpoint-*"))
        torch.distributed.barrier()
        seen[f"{name}: resumed"] = train(folder, name, resume=True)
    for name, act in (("fails", fail), ("nan", not_a_number)):
        for process in (0, 1):
            trainer = make_trainer(folder, f"{name}-{process}", InSecondBatch(process, act))
            seen[f"{name}-{process}"] = error_of(trainer.train)
    evaluated = make_trainer(folder, "evaluation", InSecondBatch(0, fail))
    seen["fails in evaluation"] = error_of(evaluated.evaluate)
    torch.save(seen, folder / f"{PROCESS}.pt")
    make_trainer(folder, "last", InSecondBatch(1, fail)).train()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
