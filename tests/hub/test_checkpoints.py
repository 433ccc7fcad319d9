"""Checkpoints on the Hub: without pickles, as they are here, and resumed from bit for bit."""

import pickletools
import shutil
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from huggingface_hub import snapshot_download
from support.loopback_hub import Fault
from support.trainers import RESUMABLE, all_records, assert_same, checkpoints, trained_weights

from trainer_ext.errors import CheckpointError, HubError
from trainer_ext.hub.checkpoints import fetch_checkpoint, local_checkpoint
from trainer_ext.hub.push import Push
from trainer_ext.runs.contents import load_plain
from trainer_ext.runs.equality import checkpoint_differences
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.manifest import find_damage, write_manifest
from trainer_ext.runs.plain import restore, write_plain

#: Two updates on each rollout, and a checkpoint after each: the first has the rollout that is still in training.
IN_A_ROLLOUT = {
    **RESUMABLE,
    "num_images_per_prompt": 2,
    "per_device_train_batch_size": 2,
}


@pytest.fixture(autouse=True)
def environment(logged_in):
    """That of a user who is logged in at the Hub on this machine."""


def is_pickle(content):
    """Whether anything would unpickle it."""
    try:
        return bool(list(pickletools.genops(content)))
    except Exception:
        return False


def same(first, second):
    """Whether values are equal bit for bit, and of the same types."""
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        first_bytes, second_bytes = (value.contiguous().reshape(-1).view(torch.uint8) for value in (first, second))
        return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first_bytes, second_bytes)
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, dict):
        return [*first] == [*second] and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second or (first != first and second != second)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_pipeline):
    """A run of four updates on two rollouts."""
    from support import trainers

    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    torch.manual_seed(0)
    trainer = trainers.make_trainer(tiny_pipeline(), folder, **{**trainers.TINY, **IN_A_ROLLOUT})
    trainer.train()
    return folder, trained_weights(trainer.model)


@pytest.mark.parametrize("updates", [1, 2])
def test_there_and_back(trained, tmp_path, updates):
    checkpoint = trained[0] / f"checkpoint-{updates}"
    write_plain(checkpoint, tmp_path / "plain")
    assert find_damage(tmp_path / "plain") is None
    for file in (path for path in (tmp_path / "plain").rglob("*") if path.is_file()):
        assert file.suffix in (".json", ".safetensors")
        assert not zipfile.is_zipfile(file)
        assert not is_pickle(file.read_bytes())
    restore(tmp_path / "plain", tmp_path / "again")
    assert find_damage(tmp_path / "again") is None
    assert {path.name for path in (tmp_path / "again").iterdir()} == {path.name for path in checkpoint.iterdir()}
    for file in (path for path in checkpoint.iterdir() if path.suffix in (".pt", ".pth")):
        assert same(load_plain(file), load_plain(tmp_path / "again" / file.name)), file.name
    assert checkpoint_differences(tmp_path, trained[0]) == []  # of those that both have


VALUES = {
    "plain": [None, True, 1, -(2**70), 0.1, "text", "hf_x"],
    "special": [float("nan"), float("inf"), -0.0, 5e-324],
    "mappings": {0: {"exp_avg": torch.ones(2)}, "a": (1, (2,)), (1, 2): []},
    "ordered": OrderedDict(b=1, a=2),
    "tensors": [
        torch.tensor(1.5),
        torch.zeros(0),
        torch.ones(2, 3, dtype=torch.bfloat16),
        torch.arange(3).bool(),
        torch.ones(3)[::2],
    ],
    "arrays": [np.arange(624, dtype=np.uint32)],
    "torch's own": [torch.Size([1, 2]), torch.float16, torch.device("cpu")],
    "bytes": [b"\x00\xff"],
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_come_back_as_they_were(tmp_path, value):
    (tmp_path / "checkpoint").mkdir()
    torch.save(value, tmp_path / "checkpoint" / "state.pt")
    write_manifest(tmp_path / "checkpoint")
    write_plain(tmp_path / "checkpoint", tmp_path / "plain")
    restore(tmp_path / "plain", tmp_path / "again")
    assert same(load_plain(tmp_path / "again" / "state.pt"), load_plain(tmp_path / "checkpoint" / "state.pt"))


def test_another_kind_of_value_is_named(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    torch.save({"odd": 1j}, tmp_path / "checkpoint" / "state.pt")
    write_manifest(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="holds a complex, which has no form without pickles"):
        write_plain(tmp_path / "checkpoint", tmp_path / "plain")


# ---- resumed from the Hub ----


def push(folder, client, **options):
    Push(RunFolder(folder), "cats", **options).adapter(client())


@pytest.fixture
def begun(trained, tmp_path):
    """The run after its first update, as if it had been interrupted."""
    folder = shutil.copytree(trained[0], tmp_path / "begun")
    for checkpoint in checkpoints(folder)[1:]:
        shutil.rmtree(folder / checkpoint)
    return folder


def test_a_run_is_resumed_from_the_hub_bit_for_bit(make_trainer, begun, trained, client, loopback):
    push(begun, client, checkpoints="last")
    for path, content in loopback.files("user/cats").items():
        assert not path.endswith((".pt", ".pth", ".bin")), path
        assert not is_pickle(content), path
    resumed = make_trainer(folder="elsewhere", **IN_A_ROLLOUT)
    resumed.train(resume_from_checkpoint="hf://user/cats")
    assert resumed.state.global_step == 4
    assert_same(trained_weights(resumed.model), trained[1])
    assert all_records(resumed.args.output_dir)[-1] == all_records(trained[0])[1]
    assert not list(resumed.args.folder.glob(".hub/*"))


def test_a_folder_that_was_downloaded_is_resumed_from(make_trainer, begun, trained, client, tmp_path):
    """As `hf download user/cats --local-dir downloaded` leaves it."""
    push(begun, client, checkpoints="last")
    snapshot_download("user/cats", local_dir=tmp_path / "downloaded", endpoint=client().endpoint)
    resumed = make_trainer(folder="elsewhere", **IN_A_ROLLOUT)
    resumed.train(resume_from_checkpoint=str(tmp_path / "downloaded"))
    assert_same(trained_weights(resumed.model), trained[1])


def test_the_newest_of_all_and_one_by_its_name(trained, client, tmp_path):
    push(trained[0], client, checkpoints="all", tag="first")
    assert fetch_checkpoint("hf://user/cats", tmp_path, client()).name == "checkpoint-4"
    assert fetch_checkpoint("hf://user/cats@first/checkpoint-2", tmp_path, client()).name == "checkpoint-2"
    assert checkpoint_differences(tmp_path, trained[0]) == []


def test_the_last_checkpoint_replaces_the_one_before(trained, client, loopback):
    for update in (1, 2):
        push(trained[0], client, checkpoints="last", update=update)
    files = loopback.files("user/cats")
    assert b'"global_step": 2' in files["last-checkpoint/trainer_state.json"]
    assert not [path for path in files if path.startswith("checkpoint-")]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://cats", "is no address; it must be hf://user/name"),
        ("hf://user/cats/a/b", "is no address"),
        ("hf://user/cats", "holds no checkpoint; there are: none"),
        ("hf://user/cats/checkpoint-7", "holds no checkpoint-7; there are: none"),
    ],
)
def test_addresses_without_a_checkpoint(run, client, tmp_path, address, message):
    push(run, client)
    with pytest.raises(CheckpointError, match=message):
        local_checkpoint(address, tmp_path, client())


def test_no_such_repository(client, tmp_path):
    with pytest.raises(HubError, match="there is no such repository, or the token may not see it"):
        local_checkpoint("hf://user/dogs", tmp_path, client())


def test_what_is_damaged_on_the_way_is_not_used(begun, client, loopback, tmp_path):
    push(begun, client, checkpoints="last")
    repo = loopback.repo("user/cats")
    _, tree = repo.at("main")
    other = tree["last-checkpoint/trainer_state.json"]
    repo.commit({**tree, "last-checkpoint/scheduler.pt.tree.json": other}, "damage", "main", "user")
    with pytest.raises(CheckpointError, match="cannot be resumed from: scheduler.pt.tree.json"):
        local_checkpoint("hf://user/cats", tmp_path, client())


def test_a_checkpoint_that_is_not_there_as_it_is_here(begun, client, loopback):
    """Somebody pushes another one between the commit and its check."""

    class Meddler(Fault):
        def hits(self, method, path):
            repo = loopback.repos.get(("model", "user/cats"))
            if (
                method == "GET"
                and "/tree/" in path
                and repo is not None
                and "last-checkpoint/optimizer.pt.tree.json" in repo.at("main")[1]
            ):
                _, tree = repo.at("main")
                repo.commit(
                    {k: v for k, v in tree.items() if not k.endswith("optimizer.pt.tree.json")}, "x", "main", "user"
                )
            return False

    loopback.faults.append(Meddler("GET", "*", 500))
    with pytest.raises(HubError, match="is not in user/cats as it is here; push again"):
        push(begun, client, checkpoints="last")


@pytest.mark.parametrize(
    ("strategy", "folders"),
    [
        ("checkpoint", {"last-checkpoint"}),
        pytest.param("all_checkpoints", {"checkpoint-1", "checkpoint-2"}, marks=pytest.mark.full),
    ],
)
def test_strategies_of_a_training(make_trainer, loopback, strategy, folders):
    options = {
        "num_train_epochs": 2,
        "save_strategy": "steps",
        "save_steps": 1,
        "push_to_hub": True,
        "hub_always_push": True,
    }
    trainer = make_trainer(hub_strategy=strategy, **options)
    trainer.train()
    assert trainer.failed_push is None
    files = loopback.files("user/run")
    assert {path.split("/")[0] for path in files if "checkpoint" in path} == folders
    assert not [path for path, content in files.items() if is_pickle(content)]
