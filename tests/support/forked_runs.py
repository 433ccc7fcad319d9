"""
Runs of the trainer in processes that can be killed, each in a fraction of a second.

This file is both sides. As a program, it imports everything once, then forks a child for each job that it reads. In a child,
a signal can be sent at the n-th call of any function, or at the n-th change of a file that is made within it.
"""

import gc
import importlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig

from support import trainers
from support.pipelines import tiny_pipeline
from support.processes import start
from support.trainers import FOUR_ANIMALS, RESUMABLE, TINY
from trainer_ext import RewardFunction
from trainer_ext.cli import main as ddpo
from trainer_ext.loop.interrupts import SAME_REQUEST_SECONDS
from trainer_ext.scoring.provenance import Provenance

OPTIONS = {
    **TINY,
    **RESUMABLE,
    "num_images_per_prompt": 2,
    "stat_min_count": 2,  # the prompts' own statistics from the first reward on: one that is remembered twice is seen
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "lora": {"r": 2, "lora_alpha": 2, "target_modules": ["to_q"]},
}

PROGRESS = re.compile(r"rollout \d+: reward ")


class ForkedRuns:
    """The side of the tests."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.num_jobs = 0
        self.server = start([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(
        self, folder, *, options=None, resume=True, at=None, call=1, within=None, after=False, send="SIGKILL", times=1
    ):
        """
        Train in `folder`. Return the exit status (negative: the signal) and what was written to stderr besides the progress.

        `at` is the dotted name of the function at whose `call`-th call the signal is sent (`after`: when it returns), as
        often as `times` says; or `"file"`, for a change of a file. `within` counts calls only inside of another function.
        """
        stop = {"at": at, "call": call, "within": within, "after": after, "send": send, "times": times}
        return self._do({"folder": str(folder), "options": options or {}, "resume": resume, "stop": stop})

    def command(self, arguments, *, at, call=1, send="SIGINT"):
        """Do the same with the command `ddpo`."""
        stop = {"at": at, "call": call, "within": None, "after": False, "send": send, "times": 1}
        return self._do({"command": arguments, "stop": stop})

    def _do(self, job):
        self.num_jobs += 1
        log = self.folder / f"job-{self.num_jobs}.log"
        print(json.dumps({**job, "log": str(log)}), file=self.server.stdin, flush=True)
        answer = self.server.stdout.readline()
        assert answer, "the server of forked runs ended; see its error above"
        lines = log.read_text().splitlines(keepends=True)
        return json.loads(answer), "".join(line for line in lines if not PROGRESS.match(line))

    def close(self):
        with self.server:  # closes its pipes, upon which it ends
            pass


# ---- in the child ----


def inside_reward():
    """A place to be stopped at."""


def brightness(images, prompts, **columns):
    inside_reward()
    return trainers.brightness(images, prompts)


def noisy(images, prompts, **columns):
    """A reward that draws from every global generator."""
    noise = [random.random() + np.random.random() + torch.rand(()).item() for _ in images]
    return [value + 10 * extra for value, extra in zip(brightness(images, prompts), noise, strict=True)]


def stop_at(at, call, within, after, send, times):
    """Send this process a signal at the `call`-th call of `at`."""
    calls = 0
    armed = within is None

    def count():
        nonlocal calls
        calls += armed
        if armed and calls == call:
            for time_ in range(times):
                time.sleep(SAME_REQUEST_SECONDS * bool(time_))  # a second Ctrl-C at once is the first one, sent on
                signal.raise_signal(signal.Signals[send])

    def counting(function):
        def counted(*args, **kwargs):
            if not after:
                count()
            result = function(*args, **kwargs)
            if after:
                count()
            return result

        return counted

    def arming(function):
        def armed_inside(*args, **kwargs):
            nonlocal armed
            armed = True
            try:
                return function(*args, **kwargs)
            finally:
                armed = False

        return armed_inside

    if within is not None:
        _wrap(within, arming)
    if at == "file":
        sys.addaudithook(lambda event, arguments: count() if _changes_a_file(event, arguments) else None)
        for name in ("torch.save", "safetensors.torch.serialize_file"):  # they write without Python's knowledge
            _wrap(name, lambda function: _writing_half(function, count))
    else:
        _wrap(at, counting)


def _changes_a_file(event, arguments):
    if event == "open":
        return isinstance(arguments[1], str) and bool(set("wax+") & set(arguments[1]))
    return event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir")


def _writing_half(function, count):
    """Count once before the file is there, and once when half of it is."""

    def halved(*args, **kwargs):
        count()
        result = function(*args, **kwargs)
        (file,) = (Path(value) for value in args if isinstance(value, str | os.PathLike))
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])  # opens it, and so counts, when it is empty
        count()
        file.write_bytes(content)
        return result

    return halved


def _wrap(dotted, wrapper):
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            owner = importlib.import_module(".".join(parts[:cut]))
            break
        except ImportError:
            continue
    for name in parts[cut:-1]:
        owner = getattr(owner, name)
    setattr(owner, parts[-1], wrapper(getattr(owner, parts[-1])))


def train(job, pipeline):
    options = {**OPTIONS, **job["options"]}
    name = options.pop("reward", "brightness")
    # by its name alone: what is stopped at the reward's own code is another function
    reward = RewardFunction(name, globals()[name], provenance=Provenance(function=name))
    evaluated = FOUR_ANIMALS.select([0, 3]) if options.pop("evaluate", False) else None
    adapter = options.pop("lora")
    adapter = None if options.get("full_finetuning") else LoraConfig(**adapter)
    in_a_notebook = options.pop("in_a_notebook", False)
    given = {"eval_dataset": evaluated, "peft_config": adapter}
    trainer = trainers.make_trainer(pipeline, job["folder"], reward, **given, **options)
    try:
        trainer.train(resume_from_checkpoint=job["resume"])
    except KeyboardInterrupt:
        if not in_a_notebook:
            raise
        trainer.train(resume_from_checkpoint=True)
    trainer.save_model()
    trainer._save_rng_state(job["folder"])  # `Trainer`'s own, for all generators
    end = {
        "adapter": {name: value for name, value in trainer.model.named_parameters() if value.requires_grad},
        "optimizer": trainer.optimizer.state_dict(),
        "schedule": trainer.lr_scheduler.state_dict(),
        "weighting": trainer.algorithm.weighting.state_dict(),
        "logs": trainer.state.log_history,
    }
    torch.save(end, Path(job["folder"]) / "end.pt")
    return 0


def in_child(job, pipeline):
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 1
    try:
        if job["stop"]["at"] is not None:
            stop_at(**job["stop"])
        status = ddpo(job["command"]) if "command" in job else train(job, pipeline)
    except KeyboardInterrupt:
        status = 130
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def serve():
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.manual_seed(0)
    pipeline = tiny_pipeline()
    with tempfile.TemporaryDirectory() as folder:  # what is done once in a process: here, and not in each child
        trainers.make_trainer(tiny_pipeline(), folder, overlap_rewards=False).train()
    gc.collect()
    gc.freeze()  # a collection in a child would copy all memory
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            in_child(json.loads(line), pipeline)
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), file=answers, flush=True)


if __name__ == "__main__":
    serve()
