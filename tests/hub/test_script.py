"""`examples/scripts/push_and_load.py`, against a Hub on this machine."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from support.trainers import TINY, make_trainer

from trainer_ext import embedded_model

SCRIPT = Path(__file__).parents[2] / "examples" / "scripts" / "push_and_load.py"


@pytest.fixture
def push_and_load():
    spec = importlib.util.spec_from_file_location("push_and_load", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_a_run_is_pushed_and_drawn_by_stock_diffusers(push_and_load, loopback, logged_in, tmp_path, capsys):
    folder = tmp_path / "run"
    trainer = make_trainer("embedded", folder, **TINY, learning_rate=1e-1)
    trainer.train()
    trainer.save_model()
    image = push_and_load(str(folder), "user/adapter")
    assert f"{loopback.url}/user/adapter" in capsys.readouterr().out
    assert (folder / "from_the_hub.png").is_file()
    plain = DiffusionPipeline.from_pretrained(embedded_model())
    (unlike,) = plain("a cat", num_inference_steps=10, generator=torch.Generator().manual_seed(0)).images
    assert not np.array_equal(image, unlike)
