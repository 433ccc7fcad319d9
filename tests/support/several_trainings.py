"""Several trainings of the pipeline FOLDER/model, one after the other, and what each process sees of them."""

import contextlib
import logging
import os
import signal
import time

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from support import trainers
from support.trainers import CAT_AND_DOG, TINY, brightness, prompts
from trainer_ext import RewardFunction
from trainer_ext.runs import checkpointer
from trainer_ext.runs.manifest import find_damage
from trainer_ext.scoring.provenance import Provenance

PROCESS = int(os.environ.get("RANK", "0"))
FIVE_PROMPTS = prompts("a cat", "a dog", "a lion", "a bear", "a fox")

# In two processes: two updates on each of two rollouts; the prompts' own statistics from the first reward on.
OPTIONS = {
    **TINY,
    "num_inference_steps": 3,
    "timestep_fraction": 0.4,  # one step of three
    "guidance_scale": 2.0,
    "num_images_per_rollout": 8,
    "num_images_per_prompt": 2,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "stat_min_count": 2,
    "learning_rate": 1e-2,
    "clip_range": 1e-2,
    "num_train_epochs": 2,
}
SEVERAL = {"ddp_backend": "gloo", "ddp_timeout": 60} if "RANK" in os.environ else {}

# One update on a rollout, of all its images and steps, by SGD, in which a wrong factor shows.
ONE_UPDATE = {
    "per_device_train_batch_size": 2,
    "timestep_fraction": 1.0,
    "num_train_epochs": 1,
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "learning_rate": 1.0,
    "rows_per_forward": 8,  # passes of 4 + 2 pairs, or of three times 4 in one process
}


# ---- rewards ----


def slow_in_one(images, prompts, log_metric, log_extra, **columns):
    if PROCESS == 1:
        time.sleep(0.3)
        log_metric("slept", 0.3)
        log_extra("slow", [True] * len(images))
    return brightness(images, prompts)


def sure_in_one(images, prompts, trainer_state, **columns):
    """A detector that is sure in process 1, after the first rollout: its mean over both is 0.5 then."""
    return [float(PROCESS == 1 and trainer_state.global_step > 0)] * len(images)


def logs_by_process(images, prompts, trainer_state, log_extra, **columns):
    """Logs texts in process 1 and numbers in process 0, in the second rollout."""
    if trainer_state.global_step > 0:
        log_extra("mine/x", ["a" if PROCESS == 1 else 1.0] * len(images))
    return brightness(images, prompts)


class InBatch:
    """Does something else with its rewards in one batch on one process."""

    def __init__(self, act, process, batch):
        self.act = act
        self.place = (process, batch)
        self.batches = 0

    def __call__(self, images, prompts, **columns):
        self.batches += 1
        rewards = brightness(images, prompts)
        return self.act(rewards) if self.place == (PROCESS, self.batches) else rewards


def fail(rewards):
    raise OSError("the reward's server is gone")


def not_a_number(rewards):
    return [float("nan"), *rewards[1:]]


def be_killed(rewards):
    os.kill(os.getpid(), signal.SIGKILL)


def press_ctrl_c(rewards):
    signal.raise_signal(signal.SIGINT)
    return rewards


# ---- callbacks ----


class Watch(TrainerCallback):
    """Notes the trained weights after every update, as one vector each."""

    def __init__(self):
        self.weights = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(trained_weights(model))


class Interrupt(TrainerCallback):
    """Presses Ctrl-C in process 1 alone, after some updates or in the middle of the next."""

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


# ---- trainings ----


def make_trainer(folder, name, reward=brightness, callbacks=(), detectors=(), **options):
    torch.manual_seed(0)
    given = {"eval_dataset": FIVE_PROMPTS, "callbacks": list(callbacks), "detectors": detectors}
    return trainers.make_trainer(
        str(folder / "model"), folder / name, reward, **given, **{**OPTIONS, **SEVERAL, **options}
    )


def trained_weights(model):
    return flat(value for value in model.parameters() if value.requires_grad)


def flat(values):
    return torch.cat([whole(value).detach().flatten() for value in values]).clone()


def whole(value):
    return value.full_tensor() if isinstance(value, DTensor) else value


def train(folder, name, resume=None, evaluate=None, callbacks=(), **options):
    """Return what this process sees: weights `before` training, `after` each update, and so on."""
    watch = Watch()
    made = make_trainer(folder, name, callbacks=[watch, *callbacks], **options)
    before = trained_weights(made.model)
    try:
        made.train(resume_from_checkpoint=resume)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    made.save_model()
    checkpoints = sorted((folder / name).glob("checkpoint-*"))
    with made._weights.evaluated():
        averaged = trained_weights(made.model)
    return {
        "before": before,
        "after": watch.weights,
        "averaged": averaged,
        "old": None if made._weights.old is None else flat(made._weights.old.values.values()),
        "retained": None if made._rollout is None else type(made._rollout.data).__name__,
        "weights of images": None if made._rollout is None else made._rollout.weights,
        "logs": made.state.log_history,
        "interrupted": interrupted,
        "kinds": {type(value).__name__ for value in made.model.parameters()},
        "evaluated": made.evaluate(evaluate) if evaluate else {},
        "checkpoints": {path.name: find_damage(path) for path in checkpoints},
    }


def evaluate(folder, name):
    """Return metrics of five images, three of process 0 and two of process 1; one at a time, so that they are bit-equal."""
    return make_trainer(folder, name, rollout_batch_size=1).evaluate()


TRAININGS = {
    "ddpo_is": {},
    "kl": {"beta": 10.0},
    "ema": {
        "ema_decay": 0.5,
        "reward": slow_in_one,
        "num_sample_images": 1,
        "sample_every": 1,
        "eval_strategy": "epoch",
    },  # pictures by one process
    # the best image of a rollout: one process has it, the other has none
    "sparse_rwr": {"algorithm": "sparse_rwr", "advantages": "batch", "rwr_quantile": 0.99},
    # an old policy beside the trained one; after the first rollout it has stayed behind. And a reference that follows by the mean
    # distance over both processes
    "nft": {
        "algorithm": "nft",
        "advantages": "group",
        "num_train_epochs": 3,
        "beta": 1.0,
        "reference_reset_kl": 1e-12,
        "reference_reset": 50,
    },
    "one update": {**ONE_UPDATE, "evaluate": CAT_AND_DOG},
    "one update, fused": {**ONE_UPDATE, "fused": True},
    "stopped by a rule": {"detectors": sure_in_one, "stop_when": ["sure_in_one>0.4"]},
    "stopped by an evaluation": {
        "eval_strategy": "epoch",
        "eval_images_per_prompt": 2,
        "stop_when": ["eval_kl>0"],  # met after the first of two rollouts
    },
}

# As "ddpo_is", with a push after the first of two saves, and one of what is saved at the end.
PUSHING = {
    "save_strategy": "epoch",
    "push_to_hub": True,
    "hub_model_id": "user/cats",
    "hub_strategy": "every_save",
}

INTERRUPTED = {
    "after update 3": {"callbacks": [Interrupt(3)]},
    "in the first update on a rollout": {"callbacks": [Interrupt(2, in_the_middle=True)]},
    "in the second rollout": {
        "reward": RewardFunction(
            "brightness", InBatch(press_ctrl_c, 1, batch=3), provenance=Provenance.of_function(brightness)
        )
    },
}

FAILING = {
    "reward of process 1 fails": InBatch(fail, 1, batch=2),
    "reward of process 0 is not a number": InBatch(not_a_number, 0, batch=2),
    "reward of process 1 fails in the second rollout": InBatch(fail, 1, batch=3),
    "processes log different types": logs_by_process,
    "reward of both fails": lambda images, prompts, **columns: fail(None),
}


def error_of(action):
    """Return the type and text of the error."""
    try:
        action()
    except Exception as error:
        return type(error).__name__, str(error)
    return None


@contextlib.contextmanager
def slow_disk(seconds):
    """Every file that torch writes takes some seconds more in process 1."""
    save = torch.save

    def slow_save(*args, **kwargs):
        time.sleep(seconds * (PROCESS == 1))
        save(*args, **kwargs)

    torch.save = slow_save
    try:
        yield
    finally:
        torch.save = save


def seal_slowly(folder):
    """Give the other process time to run away."""
    time.sleep(0.5)
    slowly(folder)


slowly = checkpointer.write_manifest


class Heard(logging.Handler):
    """Keeps what rooms of the package say."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def train_and_push(folder):
    """Return what this process sees of a training whose first push fails, and what it is told."""
    heard = Heard()
    logger = logging.getLogger("trainer_ext.hub")
    logger.addHandler(heard)
    if PROCESS == 1:
        os.environ["HF_TOKEN"] = "hf_ofProcessOne"  # a request of this process would be known by it
    try:
        return {**train(folder, "pushed", **PUSHING), "heard": heard.texts}
    finally:
        logger.removeHandler(heard)


def train_all(folder):
    """Return what this process sees, by training."""
    seen = {name: train(folder, name, **options) for name, options in TRAININGS.items()}
    seen["pushed"] = train_and_push(folder)
    seen["evaluated"] = evaluate(folder, "evaluated")
    with slow_disk(0.4):
        seen["slow disk"] = train(folder, "slow disk", save_strategy="steps", save_steps=1, save_total_limit=None)
    checkpointer.write_manifest = seal_slowly
    for name, options in INTERRUPTED.items():
        seen[name] = train(folder, name, **options)
        seen[f"{name}, resumed"] = train(folder, name, resume=True)
    for name, reward in FAILING.items():
        seen[name] = error_of(make_trainer(folder, name, reward).train)
    name = "reward of process 0 fails in evaluation"
    seen[name] = error_of(make_trainer(folder, name, InBatch(fail, 0, batch=2)).evaluate)
    make_trainer(folder, "saved").save_model(str(folder / f"saved by {PROCESS}"))
    return seen


def fail_and_end(folder):
    """The error is not caught."""
    make_trainer(folder, "last", InBatch(fail, 1, batch=2)).train()


def lose_one(folder):
    """Process 1 is killed in the second batch."""
    trainer = make_trainer(folder, "lost", InBatch(be_killed, 1, batch=2), ddp_timeout=77)
    print(
        "time-out:",
        torch.distributed.distributed_c10d._get_default_group()._get_backend(torch.device("cpu")).options._timeout,
    )
    trainer.train()
