"""Output that cannot be written: a full disk, a pipe without a reader, a closed descriptor."""

import os
import subprocess
import sys

import pytest
from support.processes import environment

DDPO = [sys.executable, "-m", "trainer_ext.cli"]


def ddpo(*arguments, **options):
    return subprocess.run(
        [*DDPO, *arguments], stderr=subprocess.PIPE, text=True, env=environment(), check=False, **options
    )


@pytest.mark.parametrize("arguments", [["rewards"], ["--help"]])
def test_a_full_disk_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        result = ddpo(*arguments, stdout=full)
    assert result.returncode == 0
    assert result.stderr.strip() == "ddpo: a part of the output could not be written: No space left on device."


def test_a_pipe_without_a_reader_is_nothing():
    """`ddpo rewards | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    result = ddpo("rewards", stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


def test_closed_descriptors():
    result = ddpo("rewards", preexec_fn=lambda: os.close(1))
    assert (result.returncode, result.stderr) == (0, "")


TRAINING = """
import os, sys
from support.pipelines import tiny_pipeline
from support.trainers import TINY, make_trainer
trainer = make_trainer(tiny_pipeline(), sys.argv[1], **{**TINY, "disable_tqdm": False, "num_train_epochs": 2})
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
trainer.train()
print(trainer.state.global_step)
"""


@pytest.mark.full
def test_a_script_trains_on_where_its_progress_bar_cannot_be_drawn(tmp_path):
    """Also the bar of a rollout, whose first line is drawn when it is made."""
    command = [sys.executable, "-c", TRAINING, str(tmp_path / "run")]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment(), check=False)
    assert result.stdout == "2\n"
