"""Scenes as latents: the autoencoder is done, so each scene is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from .data import pixels, read
from .hardware import device


def encode(shards: Sequence[Path], vae_folder: Path, folder: Path) -> None:
    """Write `latents` (N, 4, 16, 16) fp16 for each shard of scenes that has none yet."""
    vae = AutoencoderTiny.from_pretrained(vae_folder).to(device(), memory_format=torch.channels_last)
    folder.mkdir(parents=True, exist_ok=True)
    for shard in tqdm(shards, desc="latents", unit="shard"):
        file = folder / shard.name
        if not file.exists():
            temporary = file.with_suffix(".part")
            save_file({"latents": _encode(vae, read([shard], "images"))}, temporary)
            temporary.replace(file)


@torch.inference_mode()
def _encode(vae: AutoencoderTiny, images: Tensor) -> Tensor:
    parts = [vae.encode(pixels(part)).latents for part in images.split(128)]
    return torch.cat(parts).half().cpu().contiguous()
