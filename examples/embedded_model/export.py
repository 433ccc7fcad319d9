"""The pipeline folder: half precision, in the layout that stock diffusers reads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from . import generator

PREFIX = "text_model."


def export(generator_folder: Path, vae_folder: Path, folder: Path) -> None:
    """Put the parts together and write them to a folder that `StableDiffusionPipeline.from_pretrained` reads."""
    tokenizer, text_encoder, unet = generator.load(generator_folder)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(vae_folder),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=generator.make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder)
    _name_as_all_versions_do(folder / "text_encoder" / "model.safetensors")
    # Where a part lay is nobody's business; `AutoencoderTiny` writes its block_out_channels and then warns about them.
    _edit_config(folder / "vae" / "config.json", drop=("block_out_channels", "_name_or_path"))
    _edit_config(folder / "unet" / "config.json", drop=("_name_or_path",))
    # Asked for no precision, transformers 5 takes this one and diffusers float32; a pipeline of both does not run.
    _edit_config(folder / "text_encoder" / "config.json", drop=("torch_dtype",), dtype="float32")
    # transformers 5 writes tokenizer.json alone; transformers 4 reads these two.
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).write_bytes((generator_folder / "tokenizer" / name).read_bytes())


def _edit_config(file: Path, *, drop: tuple[str, ...], **values: str) -> None:
    config = json.loads(file.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in drop}
    file.write_text(json.dumps(kept | values, indent=2) + "\n", encoding="utf-8")


def _name_as_all_versions_do(file: Path) -> None:
    """Put back the prefix of CLIP's weights, which transformers 4 needs, 5 leaves out, and both read."""
    tensors = {PREFIX + key.removeprefix(PREFIX): value for key, value in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
