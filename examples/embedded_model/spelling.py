"""
The text encoder learns to spell before the generator learns to write.

Each word is one token, so nothing in a caption says how it is spelt, and a UNet alone takes very long to find out. So the
states of the tokens after a caption's end, which mean nothing otherwise, are made to hold what stands on the word's sign, a
column of it each. The head that checks it is thrown away; what the UNet makes of these states it learns later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers import CLIPTextModel

from .captions import World
from .data import batch, pixels
from .deadline import Deadline
from .hardware import device
from .loop import Plan, Trainer
from .signs import BAND, SIZE, draw_sign
from .text import make_text_encoder, make_tokenizer, tokenize
from .words import SUBJECTS, HeldOut, with_article

SEED = 7
COLUMNS = 8  #: of a sign; as many as the UNet's cross-attention has
FIRST = 7  #: token that holds the first one; "a sign that says cat" ends with token 6
KEEP = 0.3  #: weight of the states of other captions staying what they were
CAPTIONS = 20_000  #: drawn to find most there are


class Speller(nn.Module):
    """
    A text encoder, and what reads signs from its states.

    Args:
        text_encoder (`CLIPTextModel`): Makes states (B, 16, 128) of token ids.
        size (`int`): Numbers in a column of a sign.
    """

    def __init__(self, text_encoder: CLIPTextModel, size: int) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.head = nn.Linear(text_encoder.config.hidden_size, size)

    def states(self, input_ids: Tensor) -> Tensor:
        """Return states (B, 16, 128) of token ids (B, 16)."""
        return self.text_encoder(input_ids).last_hidden_state

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the columns (B, 8, size) of signs, as far as the states know them."""
        return self.head(self.states(input_ids)[:, FIRST : FIRST + COLUMNS])


@torch.no_grad()
def sign_columns(vae: AutoencoderTiny) -> Tensor:
    """Return the latents of the boards of all words' signs, in columns: (135, 8, size)."""
    signs = np.stack([_sign(word) for word in SUBJECTS]).transpose(0, 3, 1, 2)
    latents = vae.to(device()).encode(pixels(torch.from_numpy(signs).to(device()))).latents
    scale = SIZE // latents.shape[-1]
    board = latents[:, :, BAND[0] // scale : BAND[1] // scale]
    return board.unflatten(3, (COLUMNS, -1)).permute(0, 3, 1, 2, 4).flatten(2)


def _sign(word: str) -> np.ndarray:
    canvas = Image.new("RGB", (SIZE, SIZE), "gray")
    draw_sign(canvas, word)
    return np.asarray(canvas)


def step_loss(
    speller: Speller, spelt: tuple[Tensor, Tensor], kept: tuple[Tensor, Tensor] | None, plan: Plan
) -> Callable[[int], Tensor]:
    """
    Return the loss as a function of the step: of the columns, in units of their variance, and of what is to be kept.

    Args:
        spelt (`tuple` of `torch.Tensor`): Token ids (N, 16) and the columns of their signs (N, 8, size).
        kept (`tuple` of `torch.Tensor`, *optional*): Token ids (M, 16) and their states before (M, 16, 128).
    """
    variance = spelt[1].var(0).mean()

    def loss(step: int) -> Tensor:
        rows = batch(len(spelt[0]), plan.batch_size, SEED, step)
        value = mse_loss(speller(spelt[0][rows]), spelt[1][rows]) / variance
        if kept is None:
            return value
        rows = batch(len(kept[0]), plan.batch_size, SEED + 1, step)
        return value + KEEP * mse_loss(speller.states(kept[0][rows]), kept[1][rows])

    return loss


def train(vae_folder: Path, folder: Path, plan: Plan, deadline: Deadline, start: Path | None = None) -> None:
    """
    Train a text encoder and write it to a folder.

    If `start` names a pipeline folder, it begins with the text encoder there, whose UNet will find the states of pictures
    nearly as they were.
    """
    torch.manual_seed(SEED)
    tokenizer = make_tokenizer(folder / "tokenizer")
    columns = sign_columns(AutoencoderTiny.from_pretrained(vae_folder))
    text_encoder = make_text_encoder(tokenizer)
    if start:
        text_encoder = CLIPTextModel.from_pretrained(start / "text_encoder").float()
    speller = Speller(text_encoder, columns.shape[-1])
    written = [f"a sign that says {word}" for word in SUBJECTS] + [with_article(word) for word in SUBJECTS]
    spelt = tokenize(tokenizer, written).to(device()), columns.repeat(2, 1, 1)
    kept = None
    if start:
        ids = tokenize(tokenizer, picture_captions()).to(device())
        with torch.no_grad():
            kept = ids, speller.to(device()).states(ids)
    trainer = Trainer(speller, plan, folder / "spelling.checkpoint.safetensors")
    trained = trainer.train(step_loss(speller, spelt, kept, plan), deadline)
    trained.text_encoder.save_pretrained(folder / "text_encoder")


def picture_captions() -> list[str]:
    """Return the captions that pictures have."""
    world, rng = World(HeldOut.read()), Random(SEED)
    return sorted({world.describe(rng).caption for _ in range(CAPTIONS)})
