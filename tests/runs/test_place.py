"""The output folder as a place on a disk: full, read-only, impossible, or in use."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import trainers
from support.processes import start, wait_until
from support.trainers import brightness, checkpoints
from transformers import TrainerCallback

from trainer_ext.cli import main
from trainer_ext.errors import OutputDirError
from trainer_ext.runs.place import check_writable, locked, naming_disk_faults


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder, leave=0):
    """Leave some bytes of a disk."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with (folder / "filler").open("r+b") as file:
        file.truncate((folder / "filler").stat().st_size - leave)


# ---- before long work ----


def a_file(folder):
    (folder / "run").write_text("")
    return folder / "run", "there is a file with this name"


def under_a_file(folder):
    (folder / "file").write_text("")
    return folder / "file" / "run", "a part of the path is a file, not a folder"


def too_long(folder):
    return folder / ("x" * 300), "the path is too long"


def read_only(folder):
    return "/proc/run", "No such file or directory"  # the kernel's own file system, which even root cannot write


@pytest.mark.parametrize("place", [a_file, under_a_file, too_long, read_only])
def test_a_folder_that_cannot_be_written_is_found_before_a_model_is_loaded(make_trainer, tmp_path, place):
    folder, cause = place(tmp_path)
    with pytest.raises(OutputDirError, match=cause) as raised:
        make_trainer(model="no/such-model", folder=folder)
    assert str(folder) in str(raised.value)


def test_the_command_finds_it_before_a_plugin_is_loaded(capsys):
    assert main(["train", "--output_dir", "/proc/run", "--reward_funcs", "no_such_reward"]) == 2
    assert "output_dir='/proc/run' cannot be written: " in capsys.readouterr().err


def test_a_full_disk_is_found_before(small_disk):
    fill(small_disk)
    with pytest.raises(OutputDirError, match="no space is left on its disk"):
        check_writable(small_disk / "run")


def test_trying_leaves_nothing(tmp_path):
    check_writable(tmp_path / "a" / "run")
    assert list(tmp_path.iterdir()) == []
    check_writable(tmp_path)
    assert tmp_path.is_dir()


def test_processes_that_try_at_the_same_time_do_not_disturb_each_other(tmp_path):
    """One removes the folder that it created while the other is about to write there."""
    folder = tmp_path / "a" / "run"
    code = f"""
from pathlib import Path
from trainer_ext.runs.place import check_writable
print("ready", flush=True)
input()
for _ in range(500):
    check_writable(Path({str(folder)!r}))
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    processes = [start([sys.executable, "-c", code], **pipes) for _ in range(2)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told


@pytest.mark.parametrize("error", [FileNotFoundError, FileExistsError])
def test_a_folder_that_another_process_removed_meanwhile_is_tried_again(tmp_path, monkeypatch, error):
    """mkdir finds that it exists, and a moment later that it is no folder: it is gone."""
    made = Path.mkdir
    errors = [error("just removed")]

    def mkdir(path, *arguments, **options):
        if errors:
            raise errors.pop()
        made(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    check_writable(tmp_path / "run")
    assert not errors


# ---- in the run ----


def write_torch(folder):
    torch.save({"weights": torch.zeros(10_000)}, folder / "optimizer.pt")


def write_safetensors(folder):
    save_file({"weights": torch.zeros(10_000)}, folder / "adapter.safetensors")


def write_text(folder):
    (folder / "run.json").write_text("x" * 40_000)


@pytest.mark.parametrize("write", [write_torch, write_safetensors, write_text])
def test_a_disk_that_is_full_is_said_to_be(small_disk, write):
    """Writers say "unexpected pos 14976 vs 14864" or raise errors of their own."""
    fill(small_disk, leave=16_384)
    with (
        pytest.raises(OutputDirError, match="no space is left on its disk .* resume_from_checkpoint=True"),
        naming_disk_faults(small_disk),
    ):
        write(small_disk)


def test_another_error_stays_what_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError), naming_disk_faults(tmp_path):
        raise ZeroDivisionError


def test_a_run_on_a_disk_that_fills_goes_on_where_it_was(make_trainer, small_disk):
    """The filler stands for another program that fills the disk during the second rollout."""

    def filling(images, prompts, trainer_state, **columns):
        if trainer_state.global_step == 1 and not (small_disk / "filler").exists():
            fill(small_disk)
        return brightness(images, prompts)

    options = {"folder": small_disk / "run", "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 1}
    with pytest.raises(OutputDirError, match="no space is left on its disk"):
        make_trainer(reward=filling, **options).train()
    (small_disk / "filler").unlink()
    resumed = make_trainer(**options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 2
    assert checkpoints(options["folder"]) == ["checkpoint-1", "checkpoint-2"]


# ---- in use ----

HOLD = """
import sys, time
from pathlib import Path
from trainer_ext.runs.place import locked
with locked(Path(sys.argv[1])):
    Path(sys.argv[2]).touch()
    time.sleep(1000)
"""


def test_two_runs_do_not_share_a_folder(make_trainer, tmp_path):
    folder, held = tmp_path / "run", tmp_path / "held"
    folder.mkdir()
    other = start([sys.executable, "-c", HOLD, folder, held])
    try:
        wait_until(held.exists, other)
        with pytest.raises(OutputDirError, match=f"process {other.pid} on .*nothing was changed"):
            make_trainer(folder=folder).train()
    finally:
        other.kill()
        other.wait()
    make_trainer(folder=folder).train()  # a killed process holds nothing


def test_a_folder_is_free_after_a_run(make_trainer, tmp_path):
    for _ in range(2):
        with locked(tmp_path):
            assert (tmp_path / ".ddpo.owner").read_text().startswith("process ")
    assert not (tmp_path / ".ddpo.owner").exists()


class MovesAway(TrainerCallback):
    """Changes the working directory in the middle of a run, as user code in a thread or a callback may."""

    def __init__(self, folder):
        self.folder = folder

    def on_step_end(self, args, state, control, **kwargs):
        os.chdir(self.folder)


def test_another_working_directory_does_not_split_a_run(tiny_pipeline, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    saving = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 1, "num_sample_images": 1}
    options = {**trainers.TINY, **saving, "callbacks": [MovesAway(elsewhere)]}
    trainer = trainers.make_trainer(tiny_pipeline(), "run", **options)
    trainer.train()
    trainer.save_model()
    assert list(elsewhere.iterdir()) == []
    assert checkpoints(tmp_path / "run") == ["checkpoint-1", "checkpoint-2"]
    assert (tmp_path / "run" / "pytorch_lora_weights.safetensors").is_file()
