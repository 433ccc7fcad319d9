"""What was pushed, in a fresh process with an empty cache and stock diffusers: the pictures of the run, bit for bit."""

import json
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig
from support import trainers, zoo
from support.processes import environment
from support.trainers import TINY

from trainer_ext.hub.push import Push
from trainer_ext.policy.stock import stock_images
from trainer_ext.runs.folder import RunFolder

# A row of the default run is in test_card_code.py: it loads by the code on the card.
pytestmark = pytest.mark.full
FAMILIES = ["StableDiffusionPipeline", "StableDiffusion3Pipeline", "FluxPipeline"]

LOAD = """
import json, sys
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard
base, file, (settings, names, absent) = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
from trainer_ext.policy.stock import stock_images
found = {}
for label, options in names.items():
    pipeline = DiffusionPipeline.from_pretrained(base, **dict.fromkeys(absent))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights("user/cats", **options)
    found[label] = stock_images(pipeline, ["a cat", "a dog"], [1, 2], 2, settings)
ModelCard.load("user/cats").validate()
torch.save(found, file)
"""


@pytest.mark.parametrize("name", FAMILIES)
def test_stock_diffusers_makes_the_same_pictures(tmp_path, client, loopback, name):
    family = zoo.FAMILIES[name]
    torch.manual_seed(0)
    pipeline = family.make()
    pipeline.save_pretrained(tmp_path / "base")
    adapter = LoraConfig(r=4, lora_alpha=8, init_lora_weights="gaussian")
    options = {**TINY, **family.options, "peft_config": adapter, "learning_rate": 1e-1}
    trainer = trainers.make_trainer(pipeline, tmp_path / "run", **options)
    trainer.train()
    trainer.save_model()
    settings = dict(trainer.policy.sampling_kwargs)
    ours = stock_images(trainer.policy.pipeline, ["a cat", "a dog"], [1, 2], 2, settings)
    Push(RunFolder(tmp_path / "run"), "cats").adapter(client())
    names = {"by name": {"weight_name": "pytorch_lora_weights.safetensors"}, "without": {}}
    variables = {**environment(), **loopback.environment, "HF_HOME": str(tmp_path / "empty")}
    absent = [part for part, module in pipeline.components.items() if module is None]
    told = json.dumps([settings, names, absent])
    command = [sys.executable, "-c", LOAD, str(tmp_path / "base"), str(tmp_path / "images.pt"), told]
    subprocess.run(command, env=variables, check=True)
    found = torch.load(tmp_path / "images.pt")
    assert all(torch.equal(images, ours) for images in found.values())
