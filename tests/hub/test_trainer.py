"""A training that pushes itself, by real clients in processes of their own, to a Hub on this machine."""

import json
import logging
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.loopback_hub import Fault
from support.trainers import brightness

from trainer_ext import RewardFunction
from trainer_ext.cli import main
from trainer_ext.errors import HubAccessError
from trainer_ext.file_names import KOHYA_FILE, LORA_FILE
from trainer_ext.hub.process import PushProcess
from trainer_ext.runs.manifest import find_damage
from trainer_ext.scoring.provenance import Provenance

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
PUSHING = {
    "num_train_epochs": 2,
    "num_sample_images": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "push_to_hub": True,
}
COMMIT = ("POST", "/api/models/*/commit/*")


@pytest.fixture(autouse=True)
def environment(logged_in):
    """That of a user who is logged in at the Hub on this machine."""


def everything_in(folder):
    """All bytes of a folder's files, also those that are compressed within them."""
    for path in filter(Path.is_file, Path(folder).rglob("*")):
        yield path.name, path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from ((f"{path.name}/{name}", archive.read(name)) for name in archive.namelist())
        if path.suffix == ".parquet":
            yield path.name, json.dumps(pq.read_table(path).to_pylist()).encode()


@pytest.mark.parametrize("strategy", ["every_save", pytest.param("end", marks=pytest.mark.full)])
def test_neither_pickles_nor_the_token_are_uploaded_or_written(make_trainer, loopback, tmp_path, strategy):
    """The token is an option, in the environment, and among the options of a reward."""
    token = loopback.token.encode()
    judge = Provenance(
        plugin="judge", options={"client": {"apiKey": loopback.token}, "url": f"http://h/v1?key={loopback.token}"}
    )
    reward = RewardFunction("judge", brightness, provenance=judge)
    trainer = make_trainer(
        reward=reward, hub_token=loopback.token, hub_strategy=strategy, hub_always_push=True, **PUSHING
    )
    folder = trainer.args.folder
    (folder / ".partial").mkdir(parents=True)
    for left in ("training_args.bin", ".partial/half.json"):  # by another program, or a run that was killed
        (folder / left).write_bytes(token)
    trainer.train()
    trainer.save_model()
    assert trainer.failed_push is None
    files = loopback.files("user/run")
    assert {LORA_FILE, "README.md", "run.json", "before_after.png"} <= files.keys()
    assert files[LORA_FILE] == (folder / LORA_FILE).read_bytes()
    assert not [
        name for name in files if name.endswith(PICKLES) or "checkpoint-" in name or name.startswith(".partial")
    ]
    assert not [blob for blob in loopback.blobs.all() if token in blob]
    assert not [request.path for request in loopback.requests if token in request.body]
    titles = [commit.title for _, commit in loopback.repo("user/run").history()]
    saves = ["Training in progress, update 2", "Training in progress, update 1"]
    assert [title for title in titles if "Training" in title] == (saves if strategy == "every_save" else [])
    left = {"training_args.bin", "half.json"}
    assert not [name for name, content in everything_in(folder) if token in content and name not in left]
    assert not [path for path in folder.glob("*") if path.suffix in PICKLES and path.name not in left]


def test_every_save_pushes_the_adapter_of_its_checkpoint(make_trainer, loopback, monkeypatch):
    """Once that is complete, and without anything being added to it."""
    start, damages = PushProcess.start, []

    def started(push, *arguments):
        damages.append(find_damage(push.checkpoint))
        return start(push, *arguments)

    monkeypatch.setattr(PushProcess, "start", started)
    trainer = make_trainer(hub_strategy="every_save", hub_always_push=True, **PUSHING)
    trainer.train()
    assert damages == [None, None]
    assert not list(trainer.args.folder.glob("checkpoint-*/*kohya*"))
    assert not list(trainer.args.folder.glob(".hub/*"))
    history = loopback.repo("user/run").history()
    (first,) = [oid for oid, commit in history if commit.title.endswith("update 1")]
    assert (
        loopback.files("user/run", revision=first)[LORA_FILE]
        == (trainer.args.folder / "checkpoint-1" / LORA_FILE).read_bytes()
    )
    assert KOHYA_FILE in loopback.files("user/run", revision=first)


def test_a_push_by_hand(make_trainer, loopback):
    trainer = make_trainer()
    trainer.train()
    assert trainer.push_to_hub("done", private=True) == f"{loopback.url}/user/run"
    assert loopback.files("user/run")[LORA_FILE] == (trainer.args.folder / LORA_FILE).read_bytes()
    assert loopback.repo("user/run").history()[0][1].title == "done"
    assert loopback.repo("user/run").private


def test_the_dataset_by_hand(make_trainer, loopback):
    trainer = make_trainer(num_sample_images=1, hub_model_id="user/cats")
    trainer.train()
    assert trainer.push_dataset_to_hub(private=True) == f"{loopback.url}/datasets/user/cats-images"
    assert loopback.repo("user/cats-images", "dataset").private
    assert [path for path in loopback.files("user/cats-images", "dataset") if path.endswith(".parquet")]
    assert ("model", "user/cats") not in loopback.repos


@pytest.mark.parametrize("token", ["hf_nobodysTokenAtAll", "hf_readsOnlyLoopback"])
def test_a_wrong_token_is_said_before_training(make_trainer, token):
    with pytest.raises(HubAccessError, match="could not .*token") as raised:
        make_trainer(hub_token=token, **PUSHING)
    assert token not in str(raised.value)


def test_a_hub_that_cannot_be_reached_ends_nothing(make_trainer, loopback, caplog, monkeypatch):
    """Before the training, in it, and at its end."""
    monkeypatch.setattr("trainer_ext.hub.client.WAITS_SECONDS", ())
    loopback.faults.append(Fault("*", "*", 503, times=-1))
    trainer = make_trainer(hub_strategy="every_save", hub_model_id="user/cats", **PUSHING)
    for later in ("Hub cannot be reached now", "The run goes on"):
        assert later in caplog.text
    loopback.faults[:] = [Fault(*COMMIT, 400, times=-1)]  # which is not tried again, as it would be after a cut
    trainer.train()
    trainer.save_model()
    assert trainer.failed_push is not None
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert any(
        f"Push it with: ddpo push {trainer.args.folder} --repo user/cats" in text
        and "The adapter was not pushed" in text
        for text in warnings
    )
    assert (trainer.args.folder / LORA_FILE).is_file()
    loopback.faults.clear()
    assert main(["push", str(trainer.args.folder), "--repo", "user/cats"]) == 0
    assert loopback.files("user/cats")[LORA_FILE] == (trainer.args.folder / LORA_FILE).read_bytes()
