"""Tiny pipelines with random weights, one for each family, built from configurations: no network, no files but our own."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from diffusers import (
    AutoencoderTiny,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from trainer_ext.loading import DTYPE_ARGUMENT, embedded_model


def vae():
    """Of the embedded model: 8 x 8 latents of 4 channels are 32 x 32 images."""
    return AutoencoderTiny.from_pretrained(embedded_model() / "vae", **{DTYPE_ARGUMENT: torch.float32})


def clip_tokenizer():
    return CLIPTokenizer.from_pretrained(embedded_model() / "tokenizer")


def clip_text(kind, width=16):
    config = CLIPTextConfig(
        vocab_size=922,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=width,
        bos_token_id=920,
        eos_token_id=921,
        pad_token_id=921,
    )
    return kind(config)


def stable_diffusion_3():
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            pos_embed_max_size=8,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=clip_text(CLIPTextModelWithProjection),
        text_encoder_2=clip_text(CLIPTextModelWithProjection),
        text_encoder_3=None,
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=None,
    )


@dataclass(frozen=True)
class Family:
    """
    Parameters:
        name (`str`):
            Of the pipeline's class, or with what sets it apart.
        build (`Callable`):
            Makes the pipeline.
        guidance (`str`):
            The rule that must be found.
        options (`dict`):
            For the policy.
    """

    name: str
    build: Callable[[], DiffusionPipeline]
    guidance: str
    options: dict = field(default_factory=dict)


FAMILIES = {
    family.name: family
    for family in (Family("StableDiffusion3Pipeline", stable_diffusion_3, "cfg", {"guidance_scale": 4.0}),)
}
