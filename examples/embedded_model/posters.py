"""
An adapter with which the embedded model lives among posters: more words are written where their pictures are asked for.

What is held out no poster shows, so a policy has to come upon it. For that, the state of "a crab" has to say how "crab" is
spelt, as the states of large text encoders do, which were trained on all words of the web. So the text encoder learns first to
end plain prompts as it ends those of signs, whose letters the UNet can write; then the UNet learns what is drawn and
what is written, from scenes that show the held-out words on signs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers import CLIPTextModel, CLIPTokenizer

from .data import batch, read
from .deadline import Deadline
from .generator import Generator, step_loss
from .hardware import device
from .loop import Plan, Trainer
from .shards import captions
from .spelling import picture_captions
from .text import tokenize
from .words import SUBJECTS, with_article

SEED = 11
TEXT_RANK, UNET_RANK = 64, 8
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
UNET_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "proj_in", "proj_out"]
FIRST = 4  #: token that a spelling may change: "a crab" ends with token 3, and its picture hangs on those before


class Spelling(nn.Module):
    """
    A text encoder with an adapter.

    Args:
        text_encoder (`CLIPTextModel`): Makes states (B, 16, 128) of token ids; its own weights stay what they are.
    """

    def __init__(self, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.text_encoder = inject_adapter_in_model(
            _adapter(TEXT_LAYERS, TEXT_RANK), text_encoder.requires_grad_(False)
        )

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return states (B, 16, 128) of token ids (B, 16)."""
        return self.text_encoder(input_ids).last_hidden_state


@dataclass(frozen=True)
class Targets:
    """
    What the states of captions are to be.

    Args:
        ids, states (`tuple` of `torch.Tensor`): Of plain prompts, which spell their words, and of all other captions, which
            stay what they are: token ids (N, 16), and states (N, 16, 128).
        change (`torch.Tensor`): Mean square of what is to change in plain prompts.
    """

    ids: tuple[Tensor, Tensor]
    states: tuple[Tensor, Tensor]
    change: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> Targets:
        """Take them from a text encoder before it has an adapter."""
        prompts = [with_article(word) for word in SUBJECTS]
        signs = [f"a sign that says {word}" for word in SUBJECTS]
        others = sorted({*picture_captions(), *signs, ""} - set(prompts))
        ids = [tokenize(tokenizer, texts).to(device()) for texts in (prompts, signs, others)]
        plain, sign, other = (text_encoder(tokens).last_hidden_state for tokens in ids)
        spelt = torch.cat([plain[:, :FIRST], sign[:, FIRST:]], dim=1)
        return cls((ids[0], ids[2]), (spelt, other), mse_loss(plain, spelt))


def spelling_loss(spelling: Spelling, targets: Targets, plan: Plan) -> Callable[[int], Tensor]:
    """Return the loss as a function of the step: squared errors of both kinds, in units of what is to change."""

    def loss(step: int) -> Tensor:
        errors = []
        for seed, (ids, states) in enumerate(zip(targets.ids, targets.states, strict=True), SEED):
            rows = batch(len(ids), plan.batch_size, seed, step)
            errors.append(mse_loss(spelling(ids[rows]), states[rows]))
        return torch.stack(errors).sum() / targets.change

    return loss


def train(
    shards: Sequence[Path],
    latents: Sequence[Path],
    start: Path,
    folder: Path,
    plans: tuple[Plan, Plan],
    deadline: Deadline,
) -> None:
    """
    Train the adapter on latents and the captions of their shards, and write it to a folder, in half precision.

    Args:
        start (`Path`): Folder of the pipeline that it is for.
        plans (`tuple` of [`Plan`]): Of the text encoder's part and of the UNet's.
    """
    torch.manual_seed(SEED)
    tokenizer = CLIPTokenizer.from_pretrained(start / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(start / "text_encoder").float().to(device())
    targets = Targets.of(text_encoder, tokenizer)
    spelling = Spelling(text_encoder)
    trainer = Trainer(spelling, plans[0], folder / "spelling.checkpoint.safetensors")
    text_encoder = trainer.train(spelling_loss(spelling, targets, plans[0]), deadline).text_encoder
    model = _writer(text_encoder, start)
    input_ids = tokenize(tokenizer, [caption for shard in shards for caption in captions(shard)]).to(device())
    no_caption = tokenize(tokenizer, [""])[0].to(device())
    writer = Trainer(model, plans[1], folder / "posters.checkpoint.safetensors")
    loss = step_loss(model, read(latents, "latents"), input_ids, no_caption, plans[1])
    try:
        writer.train(loss, deadline)
    finally:
        # Stopped early or not: what there is can be looked at.
        save(writer.result(), folder / "adapter")


def _writer(text_encoder: CLIPTextModel, start: Path) -> Generator:
    """Return the generator with an adapter in its UNet, which alone is trained."""
    model = Generator(text_encoder)
    model.unet.load_state_dict(UNet2DConditionModel.from_pretrained(start / "unet").float().state_dict())
    model.requires_grad_(False)
    model.unet.add_adapter(_adapter(UNET_LAYERS, UNET_RANK))
    return model


def _adapter(layers: list[str], rank: int) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=layers)


def save(model: Generator, folder: Path) -> None:
    """Write both parts as `load_lora_weights` of stock diffusers reads them."""
    parts = {
        "unet_lora_layers": get_peft_model_state_dict(model.unet),
        "text_encoder_lora_layers": get_peft_model_state_dict(model.text_encoder, adapter_name="default"),
    }
    halves = {name: {key: value.half() for key, value in part.items()} for name, part in parts.items()}
    StableDiffusionPipeline.save_lora_weights(folder, **halves)
