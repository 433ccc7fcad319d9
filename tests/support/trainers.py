"""Trainings that take a fraction of a second, and what is asked about them afterwards."""

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback

from trainer_ext import Algorithm, DDPOConfig, DDPOTrainer
from trainer_ext.runs.folder import RunFolder


def prompts(*texts):
    return Dataset.from_dict({"prompt": list(texts)})


CAT_AND_DOG = prompts("a cat", "a dog")
FOUR_ANIMALS = prompts("a cat", "a dog", "a lion", "a bear")

#: Two batches a rollout, one update on it. Modules add what they need; see `run_options` in conftest.py.
TINY = {
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "num_images_per_rollout": 4,
    "rollout_batch_size": 2,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 1,
    "num_sample_images": 0,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}

#: The option by the name that this version of transformers has for it.
CHECKPOINTING = next(
    name for name in ("activation_checkpointing", "gradient_checkpointing") if name in DDPOConfig.__dataclass_fields__
)

#: Two rollouts, and after each update a checkpoint to resume from. Runs that use it say how many updates a rollout has.
RESUMABLE = {
    "dataset": FOUR_ANIMALS,
    "learning_rate": 1e-2,
    "clip_range": 1e-2,
    "num_train_epochs": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": None,
}

#: What `DDPOTrainer` takes itself; everything else that `make_trainer` is given is an option of the run.
OF_THE_TRAINER = {
    "eval_dataset",
    "callbacks",
    "peft_config",
    "eval_reward_funcs",
    "detectors",
    "guidance",
    "guidance_rules",
}


def brightness(images, prompts, **columns):
    """The reward of most trainings: the mean of an image's pixels, from 0 to 255."""
    return [float(np.asarray(image).mean()) for image in images]


def redness(images, prompts, **columns):
    return [float(np.asarray(image)[..., 0].mean()) for image in images]


def returning(*values):
    """A reward or detector of which only the answer matters."""

    def function(images, prompts, **columns):
        return list(values)

    return function


def make_trainer(model, folder, reward=brightness, dataset=CAT_AND_DOG, **options):
    own = {name: options.pop(name) for name in OF_THE_TRAINER & options.keys()}
    if isinstance(options.get("algorithm"), Algorithm):  # by its name it is an option of the run
        own["algorithm"] = options.pop("algorithm")
    return DDPOTrainer(model, reward, DDPOConfig(output_dir=str(folder), **{**TINY, **options}), dataset, **own)


def as_flags(options):
    """Options as the command line takes them."""
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


# Weights


def trained_weights(model):
    """A copy of what is trained, by name."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def as_vector(values):
    return torch.cat([value.flatten() for value in values.values()])


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def difference(first, second):
    """The norm of the difference, relative."""
    return ((first - second).norm() / second.norm()).item()


def differ(first, second):
    return not torch.equal(as_vector(first), as_vector(second))


class Gradients(TrainerCallback):
    """The gradients of each update, by name."""

    def __init__(self):
        self.of_updates = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.of_updates.append({name: value.grad.clone() for name, value in trained.items()})


def train_with_gradients(make_trainer, folder, gradients, **options):
    """The trainer, the gradient of each update, what was logged, and the figures of each denoising step of a rollout."""
    trainer = make_trainer(folder=folder, callbacks=[gradients], **options)
    trainer.train()
    (log,) = logs_of(trainer, "reward")
    figures = {name: value for name, value in log.items() if "second" not in name}
    return trainer, list(map(as_vector, gradients.of_updates)), figures, RunFolder(trainer.args.folder).steps()


# What a run leaves behind


def records(folder, index=0):
    """The records of one rollout, one for each image."""
    return RunFolder(Path(folder)).records(index)


def all_records(folder):
    """The records of every rollout."""
    return [records(folder, index) for index in RunFolder(Path(folder)).rollouts()]


def checkpoints(folder):
    return sorted(path.name for path in RunFolder(Path(folder)).checkpoints())


def logs_of(trainer, key):
    """The logged rows that have this metric."""
    return [log for log in trainer.state.log_history if key in log]
