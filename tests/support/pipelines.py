"""A Stable Diffusion that does a step in a millisecond."""

import copy
from functools import cache

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from trainer_ext.model.loading import DTYPE_ARGUMENT, load_pipeline
from trainer_ext.shipped import embedded_model


@cache
def _frozen_parts():
    """Tokenizer, text encoder and decoder of the embedded model: prompts are padded to 16 tokens."""
    folder, dtype = embedded_model(), {DTYPE_ARGUMENT: torch.float32}
    with torch.random.fork_rng(devices=[]):  # or the first pipeline of a process would be another one
        return {
            "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder", **dtype),
            "vae": AutoencoderTiny.from_pretrained(folder / "vae", **dtype),
        }


def tiny_pipeline(prediction_type="epsilon", **scheduler_kwargs):
    """Make a pipeline with a tiny random UNet: 8 x 8 latents, 32 x 32 images."""
    parts = _frozen_parts()
    parts = {name: part if name == "tokenizer" else copy.deepcopy(part) for name, part in parts.items()}
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
        cross_attention_dim=parts["text_encoder"].config.hidden_size,
    )
    options = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, **scheduler_kwargs}
    scheduler = DDIMScheduler(prediction_type=prediction_type, **options)
    safety = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return load_pipeline(StableDiffusionPipeline(**parts, unet=unet.eval(), scheduler=scheduler, **safety))
