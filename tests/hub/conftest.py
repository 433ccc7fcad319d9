import shutil

import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest
import torch
from support import pipelines, trainers
from support.loopback_hub import LoopbackHub

from trainer_ext.hub.upload import Hub

#: A run of two updates, with pictures and a checkpoint after each.
RUN = {
    **trainers.TINY,
    "num_sample_images": 2,
    "num_train_epochs": 2,
    "learning_rate": 1e-1,
    "save_strategy": "steps",
    "save_steps": 1,
}


@pytest.fixture
def loopback(tmp_path, monkeypatch):
    """A Hub on this machine. Its client neither thinks that it is offline nor waits between its own attempts."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)
    with LoopbackHub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def client(loopback):
    """The Hub as its user sees it, who is not patient."""

    def client(token=loopback.token, **options):
        return Hub(token, loopback.url, **{"patience": 30.0, "waits": (0.0,), **options})

    return client


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run. Tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    torch.manual_seed(0)
    trainer = trainers.make_trainer(pipelines.tiny_pipeline(), folder, **RUN)
    trainer.train()
    trainer.save_model()
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished, tmp_path / "run")
