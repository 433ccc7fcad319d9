"""What draws or describes a run can only warn."""

import logging
import shutil
import warnings
from pathlib import Path

import matplotlib.figure
import pytest
import torch
from PIL import Image
from support.trainers import brightness, checkpoints, prompts
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from trainer_ext import RewardFunction
from trainer_ext.loop.describing import describing
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.pictures.captions import LINE_WIDTH, MAX_LINES, caption
from trainer_ext.runs.pictures.contact_sheet import ContactSheet
from trainer_ext.runs.pictures.sheets import SampleSet, draw_sheet, load_images

PICTURES = {"num_sample_images": 2, "sample_every": 1, "num_train_epochs": 2}
PROMPTS = {
    "mathematics": "a $\\frac{1}{0$ bill, 5$ and 10$",
    "long": "a very " * 60 + "old cat",
    "one word": "x" * 5000,
    "1 MB": "a cat " * 170_000,
    "Chinese": "一只猫在草地上玩耍" * 10,
    "emoji": "a 🐈 on a 🧱",
    "right to left": "قطة على العشب",
    "control": "a\x00b\x07c\x1b[31m\nd\u202e",
    "lone surrogate": "a \ud800 cat",
    "braces": "{0} %s \\N{DASH} \\",
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_a_sheet_of_any_prompts(tmp_path, prompt):
    samples = SampleSet([prompt] * 3, [0, 1, 2], torch.zeros(3, 8, 8, 3, dtype=torch.uint8), [1.0, 2.0, float("nan")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Glyph 29483 missing from font(s)"
        draw_sheet(tmp_path / "sheet.png", [("before", samples), ("after", samples)])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (576, 514)  # 3 columns of 192 pixels, 2 rows of 252, and an edge: no caption widens it


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a cat", "a cat"),
        ("a $1 bill", "a $1 bill"),
        ("a cat\n on  a mat", "a cat on a mat"),
        ("a very large cat that is sitting on a mat", "a very large cat that is\nsitting on a mat"),
        ("", "prompt 7"),
        ("\x00\x07", "prompt 7"),
        ("\ue000\ue001", "prompt 7"),  # no font has characters for private use
    ],
)
def test_captions(prompt, shown):
    assert caption(prompt, 7) == shown


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_captions_have_a_size(prompt):
    lines = caption(prompt, 7).splitlines()
    assert 1 <= len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= LINE_WIDTH


def test_a_warning_is_given_once(caplog):
    for _ in range(3):
        with describing("This very picture"):
            raise OSError("no pencil")
    assert [record.message for record in caplog.records] == [
        "This very picture could not be made, and the run goes on without it: OSError: no pencil"
    ]


def test_ctrl_c_is_no_error():
    with pytest.raises(KeyboardInterrupt), describing("A picture"):
        raise KeyboardInterrupt


def test_the_curve_is_drawn_once_at_each_moment(make_trainer, monkeypatch):
    drawn = []
    savefig = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, place: (drawn.append(place.name), savefig(self, place))
    )
    trainer = make_trainer(**PICTURES)
    trainer.train()
    assert drawn == ["reward_curve.png"] * 2  # after the first update, and when training ends


@pytest.fixture
def broken_pencils(monkeypatch):
    def fails(self, *args, **kwargs):
        raise ValueError("ParseFatalException")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fails)
    monkeypatch.setattr(ContactSheet, "save", fails)


def test_a_run_whose_sheets_and_curves_cannot_be_drawn(make_trainer, broken_pencils, caplog):
    trainer = make_trainer(**PICTURES)
    trainer.train()
    folder = RunFolder(trainer.args.folder)
    assert [sheet.updates for sheet in folder.samples()] == [0, 1, 2]
    assert load_images(folder.pictures_of(2)).shape == (2, 32, 32, 3)
    assert not folder.comparison_file.exists()
    assert {record.message.split(" could")[0] for record in caplog.records if record.levelno == logging.WARNING} >= {
        "A sheet of pictures",
        "The reward curve",
        "The sheet that compares before and after",
    }


def test_a_reward_that_fails_on_later_pictures_only_warns(make_trainer, caplog):
    """It is a number for a sheet; that of a rollout would end the run."""

    def fails_on_pictures(images, prompts, trainer_state, **columns):
        if trainer_state.global_step and len(images) == 3:
            raise OSError("the server is gone")
        return brightness(images, prompts)

    dataset = prompts("a cat", "a dog", "a lion", "a bear")
    options = {**PICTURES, "num_sample_images": 3, "dataset": dataset}
    trainer = make_trainer(reward=RewardFunction("moody", fails_on_pictures), **options)
    trainer.train()
    assert trainer.state.global_step == 2
    assert [sheet.updates for sheet in RunFolder(trainer.args.folder).samples()] == [0]
    assert "Reward 'moody' raised OSError: the server is gone" in caplog.text


def test_a_reward_that_fails_on_the_first_pictures_ends_the_run_before_it_trains(make_trainer):
    def fails(images, prompts, **columns):
        raise OSError("the server is not there yet")

    with pytest.raises(Exception, match="the server is not there yet"):
        make_trainer(reward=fails, **PICTURES).train()


class Destroy(TrainerCallback):
    """Damages the folder of the run after its first update."""

    def __init__(self, damage):
        self.damage = damage

    def on_substep_end(self, args, state, control, **kwargs):
        pass

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.damage(Path(args.output_dir))


def all_of_it(folder):
    shutil.rmtree(folder)


def full(row):
    return pytest.param(row, marks=pytest.mark.full)


def all_samples(folder):
    shutil.rmtree(folder / "samples")


def a_picture(folder):
    (folder / "samples" / "update-00000" / "00.png").write_bytes(b"\x89PNG half")


def no_pictures(folder):
    shutil.rmtree(folder / "samples" / "update-00000")


@pytest.mark.parametrize("damage", [all_of_it, a_picture, full(all_samples), full(no_pictures)])
def test_a_folder_that_somebody_damages_in_the_run(make_trainer, damage):
    trainer = make_trainer(callbacks=[Destroy(damage)], save_strategy="steps", save_steps=1, **PICTURES)
    trainer.train()
    trainer.save_model()
    assert trainer.state.global_step == 2
    assert "checkpoint-2" in checkpoints(trainer.args.output_dir)
    assert (trainer.args.folder / "pytorch_lora_weights.safetensors").is_file()


@pytest.mark.parametrize("damage", [a_picture, full(no_pictures), full(all_samples)])
def test_damaged_pictures_do_not_keep_a_run_from_its_end(make_trainer, damage):
    options = {"folder": "run", "save_strategy": "steps", "save_steps": 1, **PICTURES}
    first = make_trainer(**{**options, "num_train_epochs": 1})
    first.train()
    damage(first.args.folder)
    resumed = make_trainer(**options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 2


@pytest.mark.parametrize("ema_decay", [full(None), 0.5])
def test_before_is_before_training_in_another_folder_too(make_trainer, ema_decay):
    """A run that is resumed into a new folder finds no pictures there: the adapter is switched off for them."""
    options = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-1, "ema_decay": ema_decay, **PICTURES}
    first = make_trainer(folder="first", **{**options, "num_train_epochs": 1})
    first.train()
    second = make_trainer(folder="second", **options)
    second.train(resume_from_checkpoint=str(first.args.folder / "checkpoint-1"))
    there, here = (RunFolder(trainer.args.folder) for trainer in (first, second))
    assert [sheet.updates for sheet in here.samples()] == [0, 2]
    assert torch.equal(load_images(here.pictures_of(0)), load_images(there.pictures_of(0)))
    assert here.samples()[0].rewards.tolist() == there.samples()[0].rewards.tolist()
    assert not torch.equal(load_images(here.pictures_of(2)), load_images(here.pictures_of(0)))
    assert second.summary.paired is not None


# ---- trackers ----


class Tracker(TrainerCallback):
    """Fails where it is told to."""

    fails = ()
    error = OSError(28, "No space left on device")

    def on_train_begin(self, args, state, control, **kwargs):
        self._note("on_train_begin")

    def on_log(self, args, state, control, **kwargs):
        self._note("on_log")

    def on_save(self, args, state, control, **kwargs):
        self._note("on_save")

    def on_train_end(self, args, state, control, **kwargs):
        self._note("on_train_end")

    def _note(self, event):
        if event in self.fails:
            raise self.error


@pytest.fixture
def tracker(monkeypatch):
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Tracker)
    return Tracker()


def test_a_tracker_that_fails_in_a_training_only_warns(make_trainer, tracker, caplog):
    tracker.fails = ("on_log", "on_save", "on_train_end")
    trainer = make_trainer(callbacks=[tracker], save_strategy="epoch", num_train_epochs=2)
    trainer.train()
    assert trainer.state.global_step == 2
    warning = "What Tracker records could not be made, and the run goes on without it: OSError: [Errno 28] No space"
    assert caplog.text.count(warning) == 1
    trainer.remove_callback(Tracker)
    assert tracker not in trainer.callback_handler.callbacks


def test_a_tracker_that_cannot_begin_ends_the_run_before_it_trains(make_trainer, tracker):
    tracker.fails, tracker.error = ("on_train_begin",), ConnectionError("no server")
    trainer = make_trainer(callbacks=[tracker])
    with pytest.raises(ConnectionError, match="no server"):
        trainer.train()
    assert trainer.state.global_step == 0
