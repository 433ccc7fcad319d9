"""Take a finished run to the Hub, and load it there with stock diffusers: `python push_and_load.py FOLDER OWNER/NAME`."""

import sys
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from trainer_ext import embedded_model
from trainer_ext.hub.client import Hub
from trainer_ext.hub.push import Push
from trainer_ext.runs.folder import RunFolder


def main(folder, repo):
    run = RunFolder(Path(folder))
    print(Hub().address(Push(run, repo).adapter(Hub())))
    setup = run.setups()[-1]
    model = embedded_model() if setup["model"] == "embedded" else setup["model"]
    pipeline = DiffusionPipeline.from_pretrained(model)
    pipeline.load_lora_weights(repo, weight_name="pytorch_lora_weights.safetensors")
    (image,) = pipeline("a cat", num_inference_steps=10, generator=torch.Generator().manual_seed(0)).images
    image.save(Path(folder) / "from_the_hub.png")
    return image


if __name__ == "__main__":
    main(*sys.argv[1:])
