"""Files of a checkpoint that are not what their names say, although its manifest lists them: a person replaced them."""

import os
import pickle
import shutil
import zipfile

import pytest
import torch

from trainer_ext.errors import CheckpointError
from trainer_ext.runs.manifest import write_manifest

RUN = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 1}
FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "ddpo_state_0.pt", "pytorch_lora_weights.safetensors", "trainer_state.json")  # fmt: skip


class Touch:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (os.system, (f"touch {self.file}",))


def plain_pickle(file, trap):
    file.write_bytes(pickle.dumps(Touch(trap)))


def torch_file(file, trap):
    torch.save({"state": Touch(trap)}, file)


def noise(file, trap):
    file.write_bytes(os.urandom(256))


def empty(file, trap):
    file.write_bytes(b"")


def half(file, trap):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty_zip(file, trap):
    with zipfile.ZipFile(file, "w"):
        pass


SPOILT = (plain_pickle, torch_file, noise, empty, half, empty_zip)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_pipeline):
    from support.trainers import make_trainer

    folder = tmp_path_factory.mktemp("contents") / "run"
    torch.manual_seed(0)
    make_trainer(tiny_pipeline(), folder, **{**RUN, "num_train_epochs": 1}).train()
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_is_named_and_none_is_run(make_trainer, run, tmp_path, name):
    for spoil in SPOILT:
        folder = shutil.copytree(run, tmp_path / spoil.__name__)
        trap = tmp_path / f"trap-{spoil.__name__}"
        spoil(folder / "checkpoint-1" / name, trap)
        write_manifest(folder / "checkpoint-1")
        with pytest.raises(CheckpointError, match=rf"its {name} cannot be read .* Resume from another checkpoint"):
            make_trainer(folder=folder, **RUN).train(resume_from_checkpoint=True)
        assert not trap.exists(), spoil.__name__


def test_what_a_run_wrote_can_be_read(make_trainer, run, tmp_path):
    """Lest the test above pass because nothing can."""
    resumed = make_trainer(folder=shutil.copytree(run, tmp_path / "run"), **RUN)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 2
