"""The pictures of the fixed prompts through training: on one strip, and given to trackers."""

import json
import shutil
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image
from support.trainers import make_trainer as make
from support.trainers import prompts
from transformers.integrations.integration_utils import TensorBoardCallback

from trainer_ext.monitoring.trackers import TRACKERS, Picture, TrackedSetupCallback, show_pictures
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.pictures import strip
from trainer_ext.runs.pictures.contact_sheet import ContactSheet
from trainer_ext.runs.pictures.strip import draw_strip

HOSTILE = prompts("a $cat_{x}$ <b>", "猫 " * 40, "a dog")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_pipeline):
    """A trainer whose pictures, before and after each of two rollouts, a tracker got."""
    torch.manual_seed(0)
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRACKERS, "mine", lambda callbacks, pictures, updates: shown.append((updates, pictures)))
        trainer = make(
            tiny_pipeline(),
            tmp_path_factory.mktemp("run") / "run",
            dataset=HOSTILE,
            num_sample_images=3,
            sample_every=1,
            num_train_epochs=2,
        )
        (callback,) = [each for each in trainer.callback_handler.callbacks if hasattr(each, "trackers")]
        callback.trackers = ["mine"]  # transformers knows no such name
        trainer.train()
    return trainer, shown


def test_trackers_get_every_drawing(trained):
    trainer, shown = trained
    assert [updates for updates, _ in shown] == [0, 1, 2]
    for (_, pictures), sheet in zip(shown, RunFolder(trainer.args.folder).samples(), strict=True):
        assert [picture.file for picture in pictures] == sheet.files
        assert pictures[2].caption == f"a dog, seed 2: {sheet.rewards[2]:.4g}"


@pytest.fixture
def placed(monkeypatch):
    """Captions of the pictures that are placed on contact sheets, by row and column; that of the whole sheet at None."""
    captions = {}
    put, write_below = ContactSheet.put, ContactSheet.write_below

    def noting_put(sheet, row, column, picture, caption):
        captions[row, column] = caption
        put(sheet, row, column, picture, caption)

    def noting_write_below(sheet, text):
        captions[None] = text
        write_below(sheet, text)

    monkeypatch.setattr(ContactSheet, "put", noting_put)
    monkeypatch.setattr(ContactSheet, "write_below", noting_write_below)
    return captions


def test_the_strip_has_a_row_for_each_prompt_and_a_column_for_each_moment(trained, placed):
    trainer, _ = trained
    folder = RunFolder(trainer.args.folder)
    assert folder.strip_file.is_file(), "at the end of the training"
    draw_strip(folder)
    assert placed.pop(None) == "brightness of the same prompts and seeds through training"
    assert sorted(placed) == [(row, column) for row in range(3) for column in range(3)]
    rewards = [sheet.rewards for sheet in folder.samples()]
    assert placed[0, 0] == f"a $cat_{{x}}$ <b>\nseed 0\nupdate 0: {rewards[0][0]:.3g}"
    assert placed[2, 2] == f"update 2: {rewards[2][2]:.3g}"


def test_a_picture_that_is_missing_leaves_its_place_empty(trained, placed, tmp_path):
    trainer, _ = trained
    shutil.copytree(trainer.args.folder, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.samples()[1].files[2].unlink()
    draw_strip(folder)
    assert {(row, column) for row in range(3) for column in range(3)} - set(placed) == {(2, 1)}


def test_a_long_run_shows_the_first_and_the_last(trained, placed, monkeypatch):
    trainer, _ = trained
    monkeypatch.setattr(strip, "MAX_ROWS", 2)
    monkeypatch.setattr(strip, "MAX_COLUMNS", 2)
    draw_strip(RunFolder(trainer.args.folder))
    titles = [placed[place] for place in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert [title.splitlines()[-1].split(":")[0] for title in titles] == ["update 0", "update 2"] * 2
    assert "seed 2" in titles[2]


def test_a_run_without_pictures_has_no_strip(tmp_path):
    draw_strip(RunFolder(tmp_path))
    assert not list(tmp_path.iterdir())


# ---- each tracker, with a stand-in for its package ----


@pytest.fixture
def pictures(tmp_path):
    files = [tmp_path / f"{index:02d}.png" for index in range(2)]
    for file in files:
        Image.new("RGB", (4, 2), "red").save(file)
    return [Picture(file, f"caption {file.stem}") for file in files]


class Calls:
    """A package or a writer that notes what is called, and with what."""

    def __init__(self):
        self.made = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.made.append((name, args, kwargs))


def test_tensorboard_gets_them_from_the_writer_that_has_the_metrics(pictures, monkeypatch):
    monkeypatch.setattr(TensorBoardCallback, "__init__", lambda self, writer: setattr(self, "tb_writer", writer))
    writer = Calls()
    show_pictures(["tensorboard"], [TensorBoardCallback(writer), TensorBoardCallback(None)], pictures, 12)
    (image, text, *_) = writer.made
    assert (image[0], image[1][0], image[1][2], image[1][1].shape) == ("add_image", "samples/00", 12, (2, 4, 3))
    assert text == ("add_text", ("samples/00/caption", "caption 00", 12), {})
    assert len(writer.made) == 4


def image_of(file, caption):
    return file, caption


def test_wandb(pictures, monkeypatch):
    logged = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Image=image_of, log=logged.append))
    show_pictures(["wandb"], [], pictures, 12)
    images = [(str(picture.file), picture.caption) for picture in pictures]
    assert logged == [{"samples": images, "train/global_step": 12}]


def test_trackio(pictures, monkeypatch):
    logged = []
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(Image=image_of, log=logged.append))
    show_pictures(["trackio"], [], pictures, 12)
    images = {f"samples/{index:02d}": (str(each.file), each.caption) for index, each in enumerate(pictures)}
    assert logged == [{**images, "train/global_step": 12}]


def test_mlflow(pictures, monkeypatch):
    mlflow = Calls()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    show_pictures(["mlflow"], [], pictures, 12)
    assert mlflow.made == [("log_artifact", (str(each.file), "samples/update-00012"), {}) for each in pictures]


def test_one_that_fails_or_takes_none_is_a_warning(pictures, monkeypatch, caplog):
    def fail(images):
        raise OSError("the server is gone")

    logged = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Image=image_of, log=fail))
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(Image=image_of, log=logged.append))
    show_pictures(["comet_ml", "wandb", "trackio"], [], pictures, 12)
    show_pictures(["comet_ml"], [], pictures, 24)
    said = [record.getMessage() for record in caplog.records]
    assert (
        said[0]
        == "comet_ml gets no pictures; those that do are tensorboard, wandb, trackio, mlflow. All are in samples/."
    )
    assert said[1].startswith(
        "The pictures for wandb could not be made, and the run goes on without it: OSError: the server"
    )
    assert len(said) == 2
    assert len(logged) == 1


# ---- what made the run ----


class Writer:
    """Keeps what TensorBoard's writer is given."""

    def __init__(self):
        self.texts = {}

    def add_text(self, name, text, step):
        self.texts[name] = text


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow"])
def test_trackers_are_told_what_made_the_run(tmp_path, tiny_pipeline, monkeypatch, tracker):
    told = {}
    writer = Writer()
    config = SimpleNamespace(update=lambda values, allow_val_change: told.update(values))
    trainer = make(tiny_pipeline(), tmp_path / "run", dataset=HOSTILE)
    functions = {"config": config, "log_dict": lambda values, name: told.update({name: values})}
    package = ModuleType(tracker)
    package.__spec__ = ModuleSpec(tracker, None)
    vars(package).update(functions)
    monkeypatch.setitem(sys.modules, tracker, package)
    trainer.args.report_to = [tracker]  # none of them is installed here
    callback = TensorBoardCallback.__new__(TensorBoardCallback)
    callback.tb_writer = writer
    (setup,) = [each for each in trainer.callback_handler.callbacks if isinstance(each, TrackedSetupCallback)]
    setup.trainer = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=[callback]))
    trainer.train()
    if tracker == "tensorboard":
        told = {"run.json": json.loads(writer.texts["run.json"].removeprefix("```json").removesuffix("```"))}
    assert told["run.json"]["rewards"].keys() == {"brightness"}
    assert told["run.json"]["prompts"] == RunFolder(tmp_path / "run").setups()[0]["prompts"]
