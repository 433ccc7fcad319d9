"""Pipelines of real sizes with random weights: what they compute means nothing, but it takes as long as with trained ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from trainer_ext.shipped import embedded_model

CLIP_TOKENS = 77
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}


def tokenizer() -> transformers.CLIPTokenizer:
    """The embedded model's, which needs no network, with as many tokens a prompt as CLIP's."""
    return transformers.CLIPTokenizer.from_pretrained(embedded_model() / "tokenizer", model_max_length=CLIP_TOKENS)


def clip_text(kind: type[Any], sizes: dict[str, int]) -> torch.nn.Module:
    words = {"bos_token_id": 648, "eos_token_id": 649, "pad_token_id": 649}
    return kind(transformers.CLIPTextConfig(**sizes, projection_dim=sizes["hidden_size"], **words))


def autoencoder(**options: Any) -> torch.nn.Module:
    widths = (128, 256, 512, 512)
    count = len(widths)
    return diffusers.AutoencoderKL(
        block_out_channels=widths,
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        sample_size=512,
        **options,
    )


def ddim() -> DDIMScheduler:
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return DDIMScheduler(**schedule, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def stable_diffusion_15() -> DiffusionPipeline:
    """Stable Diffusion 1.5: a UNet of 860 M parameters, 512 x 512 pixels."""
    return diffusers.StableDiffusionPipeline(
        unet=diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        text_encoder=clip_text(transformers.CLIPTextModel, CLIP_L),
        tokenizer=tokenizer(),
        vae=autoencoder(),
        scheduler=ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl() -> DiffusionPipeline:
    """Stable Diffusion XL: a UNet of 2.6 B parameters, 1024 x 1024 pixels."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return diffusers.StableDiffusionXLPipeline(
        unet=unet,
        text_encoder=clip_text(transformers.CLIPTextModel, CLIP_L),
        text_encoder_2=clip_text(transformers.CLIPTextModelWithProjection, CLIP_G),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        vae=autoencoder(),
        scheduler=ddim(),
        add_watermarker=False,
    )


def stable_diffusion_3() -> DiffusionPipeline:
    """Stable Diffusion 3 medium: a transformer of 2.0 B parameters, 1024 x 1024 pixels; without T5, which is optional."""
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=128,
        num_layers=24,
        attention_head_dim=64,
        num_attention_heads=24,
        joint_attention_dim=4096,
        caption_projection_dim=1536,
        pooled_projection_dim=2048,
        pos_embed_max_size=192,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=clip_text(transformers.CLIPTextModelWithProjection, CLIP_L),
        text_encoder_2=clip_text(transformers.CLIPTextModelWithProjection, CLIP_G),
        text_encoder_3=None,
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        tokenizer_3=None,
    )


def toy() -> DiffusionPipeline:
    """The same in seconds on a CPU: the embedded model's sizes."""
    return DiffusionPipeline.from_pretrained(embedded_model())


@dataclass(frozen=True)
class Model:
    """
    What is measured of a pipeline.

    Parameters:
        build (`Callable`): Makes it.
        images (`int`): Of a rollout.
        steps (`int`): Denoising steps of each.
        guidance (`float`): Scale; above 1 there are two rows an image and step.
        batch (`int`): Images that are sampled at once, and trained at once: with gradient checkpointing it is all of them.
    """

    build: Callable[[], DiffusionPipeline]
    images: int
    steps: int
    guidance: float
    batch: int

    def make(self, dtype: torch.dtype, device: str) -> DiffusionPipeline:
        """Return the pipeline with random weights, made on the device: a CPU needs a minute for billions of them."""
        torch.manual_seed(0)
        with torch.device(device):
            pipeline = self.build()
        return pipeline.to(dtype)


MODELS = {
    "SD1.5": Model(stable_diffusion_15, images=16, steps=10, guidance=5.0, batch=16),
    "SDXL": Model(stable_diffusion_xl, images=8, steps=6, guidance=5.0, batch=2),
    "SD3": Model(stable_diffusion_3, images=8, steps=6, guidance=4.5, batch=4),
}
TOY = {"toy": Model(toy, images=4, steps=3, guidance=5.0, batch=2)}
