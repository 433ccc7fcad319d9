"""The UNet and its text encoder, trained together to predict v from noisy latents and captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers import CLIPTextModel, CLIPTokenizer

from .data import batch, read
from .deadline import Deadline
from .hardware import autocast, device, generator
from .loop import Plan, Trainer
from .shards import captions
from .text import make_tokenizer, tokenize

SEED = 3
WIDTHS = (32, 64, 160)  #: channels at 16 x 16, 8 x 8 and 4 x 4
HEAD = 32  #: channels of an attention head
CAPTION_DROPOUT = 0.1  #: share of examples without a caption, for guidance


class Generator(nn.Module):
    """
    What is trained of the pipeline.

    Args:
        text_encoder (`CLIPTextModel`): Makes states (B, 16, 128) of token ids.
    """

    def __init__(self, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        below = len(WIDTHS) - 1
        self.text_encoder = text_encoder
        self.unet = UNet2DConditionModel(
            sample_size=16,
            layers_per_block=1,
            block_out_channels=WIDTHS,
            down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * below),
            up_block_types=(*["CrossAttnUpBlock2D"] * below, "UpBlock2D"),
            cross_attention_dim=text_encoder.config.hidden_size,
            attention_head_dim=tuple(width // HEAD for width in WIDTHS),
            norm_num_groups=16,
        )
        if device().type == "cpu":
            self.unet.set_attn_processor(AttnProcessor())  # faster there than fused attention, at 64 positions

    def forward(self, latents: Tensor, timesteps: Tensor, input_ids: Tensor) -> Tensor:
        """Return the predicted v (B, 4, 16, 16) of noisy latents, timesteps (B,) and token ids (B, 16)."""
        states = self.text_encoder(input_ids).last_hidden_state
        return self.unet(latents, timesteps, states).sample


def make_scheduler() -> DDIMScheduler:
    """Return Stable Diffusion's schedule, for v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def spread_timesteps(size: int, steps: int, rng: torch.Generator) -> Tensor:
    """Return one uniform timestep from each of `size` equal parts of [0, steps), in random order: less noisy gradients."""
    places = torch.arange(size, device=rng.device) + torch.rand(size, generator=rng, device=rng.device)
    order = torch.randperm(size, generator=rng, device=rng.device)
    return (places[order] * (steps / size)).long().clamp_(max=steps - 1)


def step_loss(
    model: Generator, latents: Tensor, input_ids: Tensor, no_caption: Tensor, plan: Plan
) -> Callable[[int], Tensor]:
    """
    Return the loss as a function of the step.

    Args:
        latents (`torch.Tensor`): Of all scenes, (N, 4, 16, 16).
        input_ids (`torch.Tensor`): Of their captions, (N, 16).
        no_caption (`torch.Tensor`): Of the empty caption, (16,).
    """
    scheduler = make_scheduler()
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(device())

    def loss(step: int) -> Tensor:
        rows = batch(len(latents), plan.batch_size, SEED, step)
        rng = generator(SEED + 1, step)
        clean = latents[rows].float()
        noise = torch.randn(clean.shape, generator=rng, device=device())
        timesteps = spread_timesteps(len(rows), scheduler.config.num_train_timesteps, rng)
        dropped = torch.rand(len(rows), 1, generator=rng, device=device()) < CAPTION_DROPOUT
        noisy = scheduler.add_noise(clean, noise, timesteps).contiguous(memory_format=torch.channels_last)
        with autocast():
            prediction = model(noisy, timesteps, torch.where(dropped, no_caption, input_ids[rows]))
        return mse_loss(prediction.float(), scheduler.get_velocity(clean, noise, timesteps))

    return loss


def train(
    shards: Sequence[Path],
    latents: Sequence[Path],
    text_encoder: Path,
    folder: Path,
    plan: Plan,
    deadline: Deadline,
    start: Path | None = None,
) -> None:
    """
    Train the generator on latents and the captions of their shards, and write its parts to a folder.

    It begins with a text encoder, and with the UNet of a pipeline folder if `start` names one.
    """
    torch.manual_seed(SEED)
    tokenizer = make_tokenizer(folder / "tokenizer")
    model = Generator(CLIPTextModel.from_pretrained(text_encoder).float())
    if start:
        model.unet.load_state_dict(UNet2DConditionModel.from_pretrained(start / "unet").float().state_dict())
    trainer = Trainer(model, plan, folder / "generator.checkpoint.safetensors")
    input_ids = tokenize(tokenizer, [caption for shard in shards for caption in captions(shard)]).to(device())
    no_caption = tokenize(tokenizer, [""])[0].to(device())
    try:
        trainer.train(step_loss(model, read(latents, "latents"), input_ids, no_caption, plan), deadline)
    finally:
        # Stopped early or not: what there is can be looked at.
        result = trainer.result()
        result.unet.save_pretrained(folder / "unet")
        result.text_encoder.save_pretrained(folder / "text_encoder")


def load(folder: Path) -> tuple[CLIPTokenizer, CLIPTextModel, UNet2DConditionModel]:
    """Read what [`train`] wrote."""
    return (
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        CLIPTextModel.from_pretrained(folder / "text_encoder"),
        UNet2DConditionModel.from_pretrained(folder / "unet"),
    )
