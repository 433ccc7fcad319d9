"""Which weights of a run are its newest, however it ended: what is pushed, exported and described."""

import contextlib
import shutil

import pytest
import torch
from safetensors.torch import load_file
from support import pipelines, trainers
from transformers import TrainerCallback

from trainer_ext.cli import main
from trainer_ext.errors import ConfigError
from trainer_ext.file_names import LORA_FILE, PIPELINE_FILE
from trainer_ext.hub.cards.weights import Weights
from trainer_ext.hub.export import adapter_of
from trainer_ext.hub.push import Push
from trainer_ext.runs.final_weights import writing_final_weights
from trainer_ext.runs.folder import RunFolder

SAVING = {"num_train_epochs": 2, "learning_rate": 1e-1, "save_strategy": "steps", "save_steps": 1}
FULL = {"full_finetuning": True, "learning_rate": 1e-3}


class KilledError(Exception):
    """What a kill between two updates leaves is what this leaves."""


class KillAfter(TrainerCallback):
    def __init__(self, updates):
        self.updates = updates

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.updates:
            raise KilledError


def train(folder, upto=None, resume=None, **options):
    """Train until a kill, or to the end, and save."""
    torch.manual_seed(0)
    options = {**trainers.TINY, **SAVING, **options, "callbacks": [] if upto is None else [KillAfter(upto)]}
    trainer = trainers.make_trainer(pipelines.tiny_pipeline(), folder, **options)
    with contextlib.suppress(KilledError):
        trainer.train(resume_from_checkpoint=resume)
        trainer.save_model()
    return trainer


def resume_and_kill(folder, upto, resume=True, **options):
    train(folder, upto, resume, **{"num_train_epochs": 9, **options})


def falling(images, prompts, trainer_state, **columns):
    return [-float(trainer_state.global_step)] * len(images)


BEST = {
    "eval_dataset": trainers.CAT_AND_DOG,
    "eval_reward_funcs": [falling],
    "eval_strategy": "steps",
    "eval_steps": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_rewards/falling/mean",
    "greater_is_better": True,
}


# ---- what happened to a run; each returns the folder, in the run's, that has the newest weights ----


def ended(run):
    return "."


def interrupted(run):
    shutil.rmtree(run)
    train(run, upto=1)
    return "checkpoint-1"


def resumed_and_killed(run):
    interrupted(run)
    resume_and_kill(run, 2)
    return "checkpoint-2"


def prolonged_and_killed(run):
    resume_and_kill(run, 3)
    assert (run / LORA_FILE).is_file()
    return "checkpoint-3"


def prolonged_and_killed_before_the_next_checkpoint(run):
    resume_and_kill(run, 2)
    return "."


def prolonged_and_its_newest_checkpoint_damaged(run):
    resume_and_kill(run, 4)
    (run / "checkpoint-4" / LORA_FILE).write_bytes(b"half")
    return "checkpoint-3"


def prolonged_to_its_end(run):
    train(run, resume=True, num_train_epochs=3)
    return "."


def resumed_from_an_earlier_checkpoint_and_killed(run):
    """The checkpoint of more updates belongs to another past."""
    resume_and_kill(run, 3)
    resume_and_kill(run, 2, resume=str(run / "checkpoint-1"), learning_rate=1e-2)
    return "checkpoint-2"


def exported_and_then_resumed_and_killed(run):
    """The file in the run's folder is that of the checkpoint of then."""
    interrupted(run)
    assert main(["export", str(run), "--format", "diffusers"]) == 0
    resume_and_kill(run, 2)
    return "checkpoint-2"


def killed_while_it_saved(run):
    with contextlib.suppress(KilledError), writing_final_weights(run):
        (run / LORA_FILE).write_bytes(b"half")
        raise KilledError
    return "checkpoint-2"


def downloaded(run):
    """`hf download` brings none of what only this machine needs."""
    (run / "ddpo_final.json").unlink()
    return "."


ENDS = [
    ended,
    interrupted,
    resumed_and_killed,
    prolonged_and_killed,
    prolonged_and_killed_before_the_next_checkpoint,
    prolonged_and_its_newest_checkpoint_damaged,
    prolonged_to_its_end,
    resumed_from_an_earlier_checkpoint_and_killed,
    exported_and_then_resumed_and_killed,
    killed_while_it_saved,
    downloaded,
]


@pytest.mark.parametrize("end", ENDS)
def test_the_newest_weights(run, end):
    expected = (run / end(run) / LORA_FILE).resolve()
    assert Weights.of(RunFolder(run)).file.resolve() == expected
    assert adapter_of(run).file.resolve() == expected


def test_the_best_weights_until_it_is_prolonged(tmp_path):
    run = tmp_path / "run"
    train(run, **BEST)
    end, best, last = (load_file(run / place / LORA_FILE) for place in (".", "checkpoint-1", "checkpoint-2"))
    trainers.assert_same(end, best)
    assert trainers.differ(end, last)
    assert adapter_of(run).file == run / LORA_FILE
    resume_and_kill(run, 3, **BEST)
    assert adapter_of(run).file == run / "checkpoint-3" / LORA_FILE


def test_all_weights_of_a_pipeline(tmp_path):
    run = tmp_path / "run"
    train(run, **FULL, num_train_epochs=1)
    assert Weights.of(RunFolder(run)).file == run / PIPELINE_FILE
    resume_and_kill(run, 2, **FULL)
    assert Weights.of(RunFolder(run)).file == run / "checkpoint-2" / PIPELINE_FILE
    with pytest.raises(ConfigError, match=f"holds no {LORA_FILE}. .* Runs with full_finetuning"):
        adapter_of(run)


def test_a_run_that_was_prolonged_and_killed_is_pushed_and_described_as_it_is(run, loopback, client):
    place = prolonged_and_killed(run)
    Push(RunFolder(run), "cats").adapter(client())
    files = loopback.files("user/cats")
    assert files[LORA_FILE] == (run / place / LORA_FILE).read_bytes() != (run / LORA_FILE).read_bytes()
    assert "These are the weights after 3 updates" in files["README.md"].decode()
    assert loopback.repo("user/cats").history()[0][1].title == "Training in progress, update 3"
