"""Checkpoints that can be trusted, and files that are there whole or not at all."""

import json
import logging
import os
import shutil

import pytest

from trainer_ext.errors import CheckpointError
from trainer_ext.runs.atomic import replacing
from trainer_ext.runs.manifest import (
    MANIFEST,
    check_checkpoint,
    checkpoints,
    find_damage,
    newest_checkpoint,
    prune,
    remove_manifest,
    write_manifest,
)


@pytest.fixture
def make(tmp_path):
    """Make a sealed checkpoint of two files, one of them in a folder of its own."""

    def make(step=1):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "unet").mkdir(parents=True)
        (folder / "state.pt").write_bytes(b"state")
        (folder / "unet" / "weights.bin").write_bytes(b"weights")
        write_manifest(folder)
        return folder

    return make


# ---- damage ----


def test_a_sealed_checkpoint_is_whole(make):
    assert find_damage(make()) is None


def test_it_stays_whole_where_it_is_moved_to(make, tmp_path):
    assert find_damage(make().rename(tmp_path / "elsewhere")) is None


def test_a_missing_file(make):
    folder = make()
    (folder / "unet" / "weights.bin").unlink()
    assert find_damage(folder) == "unet/weights.bin is missing"


def test_a_truncated_file(make):
    folder = make()
    (folder / "state.pt").write_bytes(b"stat")
    assert find_damage(folder) == "state.pt has 4 bytes instead of 5"


def test_a_changed_file_of_the_same_size(make):
    folder = make()
    (folder / "unet" / "weights.bin").write_bytes(b"weighTs")
    assert find_damage(folder) == "unet/weights.bin was changed since it was written"


def test_a_change_behind_the_first_chunk(make, monkeypatch):
    monkeypatch.setattr("trainer_ext.runs.manifest.CHUNK_BYTES", 4)
    folder = make()
    assert find_damage(folder) is None
    (folder / "state.pt").write_bytes(b"statE")
    assert find_damage(folder) == "state.pt was changed since it was written"


def test_a_file_that_is_not_listed(make):
    """An adapter beside the right one, which a loader might prefer."""
    folder = make()
    (folder / "unet" / "adapter.bin").write_bytes(b"")
    assert find_damage(folder) == f"unet/adapter.bin is not in its {MANIFEST}: another program put it there"


def test_what_a_kill_left_half_written_is_no_file_of_the_checkpoint(make):
    """Neither when it is completed by a later run, nor when it is left beside a whole one."""
    folder = make()
    remove_manifest(folder)
    (folder / ".partial").mkdir()
    (folder / ".partial" / MANIFEST).write_text("{")
    write_manifest(folder)
    assert find_damage(folder) is None
    (folder / ".partial").mkdir(exist_ok=True)
    (folder / ".partial" / MANIFEST).write_text("{")
    assert find_damage(folder) is None


def rewritten(folder, change):
    content = json.loads((folder / MANIFEST).read_text())
    change(content["files"])
    (folder / MANIFEST).write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["/dev/zero", "../other/state.pt", "unet/../../state.pt"])
def test_a_manifest_that_leads_outside_is_not_followed(make, name):
    """`/dev/zero` has no end."""
    folder = make()
    rewritten(folder, lambda files: files.update({name: [0, "0" * 64]}))
    assert "is no file of this folder" in find_damage(folder)


@pytest.mark.parametrize("entry", [None, 5, [5], ["5", "hash"], [5, None], {"size": 5}])
def test_a_manifest_with_other_entries(make, entry):
    folder = make()
    rewritten(folder, lambda files: files.update({"state.pt": entry}))
    assert "is no size and hash of a file" in find_damage(folder)


@pytest.mark.parametrize("target", ["/dev/zero", "unet/weights.bin"])
def test_a_link_in_the_place_of_a_file(make, target):
    folder = make()
    (folder / "state.pt").unlink()
    (folder / "state.pt").symlink_to(target)
    assert find_damage(folder) == "state.pt is not a plain file"


def test_a_link_to_a_folder_beside_the_files(make, tmp_path):
    folder = make()
    (folder / "more").symlink_to(tmp_path)
    assert find_damage(folder).startswith("more is not in its")


def test_a_folder_in_the_place_of_a_file(make):
    folder = make()
    (folder / "state.pt").unlink()
    (folder / "state.pt").mkdir()
    assert find_damage(folder).startswith("state.pt ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read(make):
    folder = make()
    (folder / "state.pt").chmod(0)
    assert find_damage(folder).startswith("state.pt cannot be read (")


def test_a_disk_that_fails(make, monkeypatch):
    folder = make()

    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("trainer_ext.runs.manifest._sha256", fail)
    assert find_damage(folder) == "state.pt cannot be read ([Errno 5] Input/output error)"


def test_no_seal(make):
    folder = make()
    remove_manifest(folder)
    remove_manifest(folder)  # there may be none
    assert find_damage(folder).startswith(f"it has no {MANIFEST}: the run was killed while it was written")


@pytest.mark.parametrize(
    "content",
    ["", '{"order": 1, "fil', "[]", "null", '{"order": 1}', '{"files": {}}', "\x00\xff"],
)
def test_an_illegible_seal(make, tmp_path, content):
    before, folder = make(1), make(2)
    (folder / MANIFEST).write_text(content, encoding="latin-1")
    assert find_damage(folder).startswith(f"its {MANIFEST} cannot be read (")
    assert newest_checkpoint(tmp_path) == before


def test_a_seal_covers_every_file_and_not_itself(make):
    folder = make()
    write_manifest(folder)
    assert json.loads((folder / MANIFEST).read_text())["files"].keys() == {"state.pt", "unet/weights.bin"}
    assert find_damage(folder) is None


# ---- which is used ----


def test_the_order_of_sealing_decides_and_not_the_number(make, tmp_path):
    make(9)
    older_option = make(4)  # by someone who resumed from checkpoint-3 with other options
    assert newest_checkpoint(tmp_path) == older_option
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-9"]


def test_no_clock_decides(make, tmp_path, monkeypatch):
    """The run goes on on a machine whose clock is behind."""
    make(1)
    with monkeypatch.context() as patch:
        patch.setattr("time.time_ns", lambda: 0)
        patch.setattr("time.time", lambda: 0.0)
        later = make(2)
    for path in later.rglob("*"):
        os.utime(path, (0, 0))
    assert newest_checkpoint(tmp_path) == later


def test_numbers_are_compared_as_numbers(make, tmp_path):
    for step in (10, 9, 100):
        make(step)
    (tmp_path / "checkpoint-best").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]


def test_damaged_ones_are_named_and_the_one_before_is_used(make, tmp_path, caplog):
    good, cut, unsealed = make(1), make(2), make(3)
    (cut / "state.pt").unlink()
    remove_manifest(unsealed)
    assert newest_checkpoint(tmp_path) == good
    messages = [record.getMessage() for record in caplog.records]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert messages[0].startswith(f"{unsealed} is not used: it has no {MANIFEST}")
    assert messages[1] == f"{cut} is not used: state.pt is missing."


def test_no_whole_one(make, tmp_path, caplog):
    remove_manifest(make(1))
    assert newest_checkpoint(tmp_path) is None
    assert "checkpoint-1 is not used: it has no" in caplog.text


def test_no_output_folder(tmp_path, caplog):
    assert newest_checkpoint(tmp_path / "none") is None
    assert not caplog.text


def test_one_that_is_asked_for(make, tmp_path):
    folder = make()
    check_checkpoint(folder)
    (folder / "state.pt").unlink()
    with pytest.raises(
        CheckpointError, match=r"checkpoint-1 cannot be resumed from: state.pt is missing\. Use resume_"
    ):
        check_checkpoint(folder)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        check_checkpoint(tmp_path / "checkpoint-2")


# ---- removal ----


def remaining(folder):
    return {int(path.name.removeprefix("checkpoint-")) for path in checkpoints(folder)}


@pytest.mark.parametrize(
    ("limit", "best", "expected"),
    [
        (None, None, {1, 2, 3, 4}),
        (0, None, {1, 2, 3, 4}),
        (1, None, {4}),
        (2, None, {3, 4}),
        (9, None, {1, 2, 3, 4}),
        (2, 1, {1, 3, 4}),
        (2, 4, {3, 4}),
    ],
)
def test_the_newest_and_the_best_are_kept(make, tmp_path, limit, best, expected):
    for step in range(1, 5):
        make(step)
    prune(tmp_path, limit, best and str(tmp_path / "." / f"checkpoint-{best}"))
    assert remaining(tmp_path) == expected


def test_the_newest_are_those_sealed_last(make, tmp_path):
    for step in (3, 4, 1, 2):
        make(step)
    prune(tmp_path, 2, None)
    assert remaining(tmp_path) == {1, 2}


def test_unfinished_ones_do_not_count_and_are_not_removed(make, tmp_path):
    for step in (1, 2, 3):
        make(step)
    remove_manifest(tmp_path / "checkpoint-3")
    prune(tmp_path, 1, None)
    assert remaining(tmp_path) == {2, 3}


def test_a_removal_that_is_cut_short_leaves_no_seal(make, tmp_path, monkeypatch):
    make(1), make(2)

    def fail(folder):
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", fail)
        with pytest.raises(OSError, match="the disk is gone"):
            prune(tmp_path, 1, None)
    assert find_damage(tmp_path / "checkpoint-1").startswith("it has no")
    assert find_damage(tmp_path / "checkpoint-2") is None


# ---- replacing ----


def fill_the_disk(path, write):
    with replacing(path) as place:
        write(place)
        raise OSError("the disk is full")


def test_a_file_takes_its_place_at_the_end(tmp_path):
    file = tmp_path / "deep" / "file.txt"
    with replacing(file) as place:
        place.write_text("new")
        assert not file.exists()
    assert file.read_text() == "new"
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep", file]  # nothing else is left


def test_the_old_file_is_there_until_the_new_one_is(tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("old")
    with replacing(file) as place:
        place.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"


def test_the_old_file_stays_if_the_block_raises(tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("old")
    with pytest.raises(OSError, match="full"):
        fill_the_disk(file, lambda place: place.write_text("ne"))
    assert file.read_text() == "old"
    with replacing(file) as place:
        assert not place.exists()  # nothing of the attempt before
        place.write_text("new")
    assert file.read_text() == "new"


def test_a_folder_replaces_a_folder(tmp_path):
    folder = tmp_path / "folder"
    for name in ("old", "new"):
        with replacing(folder) as place:
            place.mkdir()
            (place / name).touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    with pytest.raises(OSError, match="full"):
        fill_the_disk(folder, lambda place: place.mkdir())
    assert [path.name for path in folder.iterdir()] == ["new"]
    with replacing(folder) as place:
        place.mkdir()  # the one of the attempt before is gone
    assert list(folder.iterdir()) == []


def test_what_is_in_the_making_is_no_part_of_a_listing(tmp_path):
    with replacing(tmp_path / "rollout-00000.parquet") as place:
        place.touch()
        assert list(tmp_path.glob("*.parquet")) == []


def test_two_in_the_making(tmp_path):
    with replacing(tmp_path / "first") as first, replacing(tmp_path / "second") as second:
        first.touch()
        second.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
