"""A run on the Hub, through the real client and a Hub on this machine."""

import itertools
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from huggingface_hub import ModelCard
from support.loopback_hub import CUT, HANG, Fault

from trainer_ext.errors import ConfigError, HubAccessError, HubError
from trainer_ext.file_names import KOHYA_FILE, LORA_FILE, STAGING
from trainer_ext.hub import dataset as datasets_of_runs
from trainer_ext.hub.card import adapter_files
from trainer_ext.hub.cards.weights import Weights
from trainer_ext.hub.dataset import dataset_files
from trainer_ext.hub.export import Adapter, write_kohya
from trainer_ext.hub.kohya import write_kohya_file
from trainer_ext.hub.push import Push, command
from trainer_ext.runs.equality import differences
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.manifest import find_damage

#: The requests of a push, for both kinds of repositories.
ENDPOINTS = {
    "create": ("POST", "/api/repos/create"),
    "validate-yaml": ("POST", "/api/validate-yaml"),
    "preupload": ("POST", "/api/*/preupload/*"),
    "LFS batch": ("POST", "*/info/lfs/objects/batch"),
    "LFS put": ("PUT", "/lfs/*"),
    "LFS verify": ("POST", "/lfs/verify"),
    "commit": ("POST", "/api/*/commit/*"),
}
TEMPORARY = [409, 412, 429, 500, 503, CUT, HANG]


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_finished_run(run, loopback, client):
    assert Push(RunFolder(run), "cats").adapter(client()) == "user/cats"
    files = loopback.files("user/cats")
    assert files[LORA_FILE] == (run / LORA_FILE).read_bytes()
    assert "README.md" in files
    assert not loopback.repo("user/cats").private


def test_an_interrupted_run_gives_its_newest_checkpoint(run, loopback, client):
    (run / LORA_FILE).unlink()
    Push(RunFolder(run), "cats").adapter(client())
    assert loopback.files("user/cats")[LORA_FILE] == (run / "checkpoint-2" / LORA_FILE).read_bytes()


def test_a_checkpoint_by_its_number_with_a_tag(run, loopback, client):
    Push(RunFolder(run), "cats", update=1, tag="half").adapter(client())
    Push(RunFolder(run), "cats").adapter(client())
    earlier, newest = (loopback.files("user/cats", revision=name)[LORA_FILE] for name in ("half", "main"))
    assert earlier == (run / "checkpoint-1" / LORA_FILE).read_bytes() != newest
    assert loopback.repo("user/cats").history()[1][1].title == "Training in progress, update 1"
    with pytest.raises(HubAccessError, match="has the tag 'half' already, on another commit"):
        Push(RunFolder(run), "cats", tag="half").adapter(client())


def test_a_branch_and_a_private_repository(run, loopback, client):
    Push(RunFolder(run), "user/cats", private=True, revision="night").adapter(client())
    assert LORA_FILE in loopback.files("user/cats", revision="night")
    assert LORA_FILE not in loopback.files("user/cats")
    assert loopback.repo("user/cats").private


def test_nothing_is_uploaded_twice(run, loopback, client):
    Push(RunFolder(run), "cats").adapter(client())
    before = len(loopback.repo("user/cats").history())
    loopback.requests.clear()
    Push(RunFolder(run), "cats").adapter(client())
    assert len(loopback.repo("user/cats").history()) == before
    assert loopback.asked("PUT", "/lfs/") == []


def no_adapter(folder):
    (folder / LORA_FILE).unlink()
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def damaged(folder):
    (folder / "checkpoint-1" / LORA_FILE).write_bytes(b"half")


@pytest.mark.parametrize(
    ("change", "update", "message"),
    [
        (no_adapter, None, "holds no adapter or pipeline .* and no checkpoint that is whole"),
        (lambda folder: None, 7, "there is no such folder. Checkpoints of this run: checkpoint-1, checkpoint-2"),
        (damaged, 1, f"checkpoint-1 cannot be pushed: {LORA_FILE} has 4 bytes instead of"),
    ],
)
def test_what_cannot_be_pushed(run, loopback, client, change, update, message):
    change(run)
    with pytest.raises(ConfigError, match=message):
        Push(RunFolder(run), "cats", update=update).adapter(client())
    assert loopback.requests == []


# ---- the adapter for other programs ----


def test_a_unet_s_adapter_is_also_there_by_kohyas_names(run, loopback, client):
    """That of the end stays in the run's folder, too; that of a checkpoint is written beside it, and removed."""
    Push(RunFolder(run), "cats", update=1, tag="half").adapter(client())
    assert not (run / KOHYA_FILE).exists()
    assert not list((run / STAGING).iterdir())
    assert find_damage(run / "checkpoint-1") is None
    Push(RunFolder(run), "cats").adapter(client())
    for revision, folder in (("half", run / "checkpoint-1"), ("main", run)):
        write_kohya(Adapter.read(folder / LORA_FILE), run / "expected.safetensors")
        pushed = loopback.files("user/cats", revision=revision)
        assert pushed[KOHYA_FILE] == (run / "expected.safetensors").read_bytes()
        assert f"`{KOHYA_FILE}`" in pushed["README.md"].decode()
    assert (run / KOHYA_FILE).read_bytes() == pushed[KOHYA_FILE]


def test_it_is_written_again_only_for_other_weights(run, monkeypatch):
    """And torch is loaded only then."""
    write_kohya_file(Weights.of(RunFolder(run)))
    written = (run / KOHYA_FILE).stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "trainer_ext.hub.export", None)
        write_kohya_file(Weights.of(RunFolder(run)))
        assert (run / KOHYA_FILE).stat().st_mtime_ns == written
        shutil.copy(run / "checkpoint-1" / LORA_FILE, run)
        with pytest.raises(ImportError):
            write_kohya_file(Weights.of(RunFolder(run)))
    write_kohya_file(Weights.of(RunFolder(run)))
    assert (run / KOHYA_FILE).stat().st_mtime_ns > written


def test_a_run_that_was_pushed_equals_one_that_was_not(run, tmp_path, loopback, client):
    other = shutil.copytree(run, tmp_path / "other")
    Push(RunFolder(run), "cats").both(client())
    assert (run / STAGING).is_dir()
    assert differences(run, other) == []


# ---- files that are no longer among those of a run ----


def test_what_another_push_left_is_removed_and_what_a_person_added_stays(run, loopback, client, monkeypatch):
    monkeypatch.setattr(datasets_of_runs, "SHARD_BYTES", 1)
    folder = RunFolder(run)
    for rollout in (0, 1):
        folder.kept_images(rollout).mkdir(parents=True)
        shutil.copy(folder.samples()[0].files[0], folder.kept_images(rollout) / "00000.png")
    Push(folder, "cats").both(client())
    added = {"rollouts/mine.parquet": b"1", "rollouts/train-00007.parquet": b"2", "notes.txt": b"3"}
    for kind, name in (("dataset", "user/cats-images"), ("model", "user/cats")):
        client().commit(name, added if kind == "dataset" else {"notes.txt": b"3"}, "mine", kind=kind)
    before = {
        kind: set(loopback.files(name, kind))
        for kind, name in (("dataset", "user/cats-images"), ("model", "user/cats"))
    }
    shutil.rmtree(folder.kept_images(1))  # another run, with fewer rollouts
    shutil.rmtree(run / "samples")
    loopback.requests.clear()
    Push(folder, "cats").both(client())
    gone = {
        kind: before[kind] - set(loopback.files(name, kind))
        for kind, name in (("dataset", "user/cats-images"), ("model", "user/cats"))
    }
    assert gone == {
        "dataset": {"rollouts/train-00001.parquet", "before_after/train-00000.parquet"},
        "model": {"before_after.png", *(f"images/{when}-{index:02d}.png" for when in ("before", "after") for index in range(2))},
    }  # fmt: skip
    assert len(loopback.asked("POST", "/commit/")) == 2


def test_a_list_of_files_that_is_none_removes_nothing(run, loopback, client):
    for index, listed in enumerate([b"{}", b"no JSON", b'["README.md", 1, "gone.png"]', b"null"]):
        client().create("user/cats")
        client().commit("user/cats", {"ddpo_files.json": listed}, f"{index}")
        Push(RunFolder(run), "cats").adapter(client())
        assert "README.md" in loopback.files("user/cats")


# ---- the dataset, and both ----


def test_both_link_to_each_other_and_are_collected(run, loopback, client):
    assert Push(RunFolder(run), "cats", tag="v1").both(client()) == ("user/cats", "user/cats-images")
    adapter, dataset = (
        loopback.files(name, kind)["README.md"].decode()
        for name, kind in (("user/cats", "model"), ("user/cats-images", "dataset"))
    )
    assert "user/cats-images" in adapter
    assert "user/cats" in dataset
    (collection,) = loopback.collections.values()
    assert [(item["type"], item["id"]) for item in collection["items"]] == [
        ("model", "user/cats"),
        ("dataset", "user/cats-images"),
    ]
    loopback.requests.clear()
    Push(RunFolder(run), "cats", tag="v1").both(client())  # once more
    assert loopback.asked("PUT", "/lfs/") == []
    assert len(loopback.collections) == 1


def test_a_base_on_the_hub_is_read_and_collected(run, loopback, client):
    """Its licence stands in the card."""
    client().create("user/base")
    client().commit("user/base", {"README.md": b"---\nlicense: creativeml-openrail-m\n---\n"}, "card")
    setup = json.loads((run / "run.json").read_text())
    for entry in setup["runs"]:
        entry["model"] = "user/base"
    (run / "run.json").write_text(json.dumps(setup))
    Push(RunFolder(run), "cats").both(client())
    metadata = ModelCard(loopback.files("user/cats")["README.md"].decode()).data
    assert (metadata.license, metadata.base_model) == ("creativeml-openrail-m", "user/base")
    (collection,) = loopback.collections.values()
    assert ("model", "user/base") in [(item["type"], item["id"]) for item in collection["items"]]


def test_a_base_that_is_gone_keeps_nothing_back(run, loopback, client):
    setup = json.loads((run / "run.json").read_text())
    for entry in setup["runs"]:
        entry["model"] = "somebody/gone"
    (run / "run.json").write_text(json.dumps(setup))
    assert Push(RunFolder(run), "cats").adapter(client()) == "user/cats"


def test_a_persons_words_survive_a_second_push(run, loopback, client):
    Push(RunFolder(run), "cats").adapter(client())
    card = loopback.files("user/cats")["README.md"]
    client().commit("user/cats", {"README.md": card + b"\n## My notes\n\nFor Ada.\n"}, "notes")
    Push(RunFolder(run), "cats").adapter(client())
    assert b"## My notes\n\nFor Ada." in loopback.files("user/cats")["README.md"]


# ---- faults ----


@dataclass(frozen=True)
class Kind:
    """
    What is pushed.

    Parameters:
        push (`Callable`):
            Pushes a run.
        repo (`tuple[str, str]`):
            The repository, and its kind.
        files (`Callable`):
            The files that it must have.
    """

    push: Callable
    repo: tuple[str, str]
    files: Callable

    def check(self, run, loopback):
        """Check that everything is there as it is here."""
        pushed = loopback.files(*self.repo)
        expected = {name: path.read_bytes() for name, path in self.files(RunFolder(run)).items()}
        assert pushed.items() >= expected.items()
        assert "README.md" in pushed


KINDS = {
    "adapter": Kind(Push.adapter, ("user/cats", "model"), adapter_files),
    "dataset": Kind(Push.dataset, ("user/cats-images", "dataset"), dataset_files),
}


def every(faults, times):
    """
    Each fault at each endpoint, of an adapter and of a dataset. Of the default run, each fault at one of them, and for adapters
    at the commit.
    """
    rows = []
    for kind, (index, fault), name in itertools.product(KINDS, enumerate(faults), ENDPOINTS):
        if (name, fault) == ("create", 409) or (name, times) == ("LFS verify", "for ever"):
            continue  # "it exists already" is no fault; and what is there once is not verified again
        first = list(ENDPOINTS)[(index + 3 * (kind == "dataset")) % len(ENDPOINTS)]
        usual = fault != HANG and name in (first, "commit" if kind == "adapter" else first)
        marks = [] if usual else [pytest.mark.full]
        rows.append(pytest.param(KINDS[kind], name, fault, id=f"{kind} {name} {fault} {times}", marks=marks))
    return rows


def break_it(loopback, name, fault, times):
    loopback.faults.append(Fault(*ENDPOINTS[name], fault, times))


def patience(fault):
    return 1.0 if fault == HANG else 30.0


@pytest.mark.parametrize(("kind", "name", "fault"), every(TEMPORARY, "once"))
def test_a_fault_that_passes_ends_in_a_complete_push(run, loopback, client, kind, name, fault):
    break_it(loopback, name, fault, 1)
    kind.push(Push(RunFolder(run), "cats"), client(patience=patience(fault)))
    assert loopback.faults[0].times == 0
    kind.check(run, loopback)


@pytest.mark.parametrize(("kind", "name", "fault"), every(TEMPORARY, "for ever"))
def test_a_fault_that_stays_loses_nothing(run, loopback, client, kind, name, fault):
    before = bytes_of(run)
    break_it(loopback, name, fault, -1)
    with pytest.raises(HubError, match="could not") as raised:
        kind.push(Push(RunFolder(run), "cats"), client(patience=patience(fault)))
    assert not isinstance(raised.value, HubAccessError)
    assert before.items() <= bytes_of(run).items()
    loopback.faults.clear()
    kind.push(Push(RunFolder(run), "cats"), client())
    kind.check(run, loopback)


def test_an_answer_that_is_lost(run, loopback, client):
    """The commit was made, and the connection cut before the client heard of it: it is not made twice."""
    loopback.faults.append(Fault(*ENDPOINTS["commit"], CUT, after=True))
    Push(RunFolder(run), "cats").adapter(client())
    assert len(loopback.repo("user/cats").history()) == 2


@pytest.mark.parametrize(("kind", "name", "status"), every([401, 403], "once"))
def test_what_the_user_must_mend_is_said_at_once(run, loopback, client, kind, name, status):
    break_it(loopback, name, status, -1)
    with pytest.raises(HubAccessError, match={401: "the token is wrong", 403: "may not write there"}[status]):
        kind.push(Push(RunFolder(run), "cats"), client())
    assert len(loopback.asked(ENDPOINTS[name][0], "")) < 10


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        ("hf_nobodys", "cats", "the token is wrong, or there is none"),
        ("hf_readsOnlyLoopback", "cats", "may not write there: use one with the role `write`"),
        (None, "cats", "the token is wrong, or there is none"),
        ("hf_canaryOfTheLoopbackHub", "another/cats", "a name under your account or organisation"),
        ("hf_canaryOfTheLoopbackHub", "user/c a t s", "Repo id must"),
    ],
)
def test_tokens_and_names(run, client, monkeypatch, token, repo, message):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(HubAccessError, match=message) as raised:
        Push(RunFolder(run), repo).adapter(client(token))
    assert token is None or token not in str(raised.value)


def test_the_command_that_pushes_later(run):
    push = Push(RunFolder(run), "user/cats", private=True, update=4, tag="best")
    assert " ".join(command(push)) == f"ddpo push {run} --repo user/cats --update 4 --tag best --private"
