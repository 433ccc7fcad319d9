"""
Writes a pipeline of full size with random weights, without a network: for memory, time, ratios, resuming and reloading on a GPU.

    python benchmarks/random_pipeline.py sd15 random-sd15
    ddpo reproduce compressibility --model random-sd15 --budget 1h --eval_reward_funcs jpeg_incompressibility --yes

What it draws is noise, so that nothing about learning can be read from it.
"""

import argparse
import sys

import diffusers
import torch
import transformers

from trainer_ext.shipped import embedded_model

UNETS = {
    "sd15": {"sample_size": 64, "cross_attention_dim": 768},
    "sdxl": {
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}


def unet(name):
    """Return the denoiser; inside `torch.device("meta")` without its weights."""
    return diffusers.UNet2DConditionModel(**UNETS[name])


def vae(sample_size, scaling_factor):
    return diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=sample_size,
        scaling_factor=scaling_factor,
    )


def scheduler():
    steps = {"steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False}
    return diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **steps)


def tokenizer():
    return transformers.CLIPTokenizer.from_pretrained(embedded_model() / "tokenizer")


def sd15():
    return diffusers.StableDiffusionPipeline(
        unet=unet("sd15"),
        vae=vae(512, 0.18215),
        scheduler=scheduler(),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP_L)),
        tokenizer=tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl():
    second = transformers.CLIPTextConfig(**BIG_G, hidden_act="gelu", projection_dim=1280)
    return diffusers.StableDiffusionXLPipeline(
        unet=unet("sdxl"),
        vae=vae(1024, 0.13025),
        scheduler=scheduler(),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP_L)),
        text_encoder_2=transformers.CLIPTextModelWithProjection(second),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
    )


PIPELINES = {"sd15": sd15, "sdxl": sdxl}


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PIPELINES)
    parser.add_argument("folder")
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    PIPELINES[given.name]().to(torch.bfloat16).save_pretrained(given.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
