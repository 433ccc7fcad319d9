"""
Writes a pipeline that people use, with random weights and without a network: for memory, time, ratios, resuming and reloading.

    python benchmarks/random_pipeline.py sd15 random-sd15               # a few layers, for a CPU: tries the code
    python benchmarks/random_pipeline.py sd35 random-sd35 --size full   # in bfloat16, as large as the real one: for a GPU

It prints the command that tries it. There are sd15, sdxl, sd35 (medium, with its three text encoders) and flux (dev). What they
draw is noise, so that nothing about learning can be read from it.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from trainer_ext.shipped import embedded_model

SIZES = ("small", "full")

# ---- parts, each by size ----

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
SMALL_CLIP = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
T5 = {
    "small": {"vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
    "full": {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
}
UNET_BLOCKS = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
XL = {"use_linear_projection": True, "addition_embed_type": "text_time"}
DENOISERS = {
    "sd15": {
        "small": {**UNET_BLOCKS, "cross_attention_dim": 16},
        "full": {"sample_size": 64, "cross_attention_dim": 768},
    },
    "sdxl": {
        "small": {
            **UNET_BLOCKS,
            **XL,
            "cross_attention_dim": 32,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 16,
        },
        "full": {
            **XL,
            "sample_size": 128,
            "cross_attention_dim": 2048,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    },
    "sd35": {
        "small": {
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "dual_attention_layers": (0,),
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 32,
            "pos_embed_max_size": 8,
            "qk_norm": "rms_norm",
        },
        "full": {
            "sample_size": 128,
            "num_layers": 24,
            "dual_attention_layers": tuple(range(13)),
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "out_channels": 16,
            "pos_embed_max_size": 384,
            "qk_norm": "rms_norm",
        },
    },
    "flux": {
        "small": {
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 16,
            "guidance_embeds": True,
            "axes_dims_rope": (4, 4, 8),
        },
        "full": {"guidance_embeds": True},  # diffusers' defaults are FLUX.1-dev
    },
}
KINDS = {
    "sd15": diffusers.UNet2DConditionModel,
    "sdxl": diffusers.UNet2DConditionModel,
    "sd35": diffusers.SD3Transformer2DModel,
    "flux": diffusers.FluxTransformer2DModel,
}


def denoiser(name: str, size: str) -> torch.nn.Module:
    """Return the part that is trained; inside `torch.device("meta")` without its weights."""
    return KINDS[name](**DENOISERS[name][size])


def clip(size: str, full: dict[str, int], kind: type[Any] = transformers.CLIPTextModel) -> torch.nn.Module:
    sizes = full if size == "full" else SMALL_CLIP
    act = {"hidden_act": "gelu"} if full is BIG_G else {}
    words = {"bos_token_id": 648, "eos_token_id": 649, "pad_token_id": 649}  # of the embedded model's tokenizer
    return kind(transformers.CLIPTextConfig(**sizes, **act, **words, projection_dim=sizes["hidden_size"]))


def projecting(size: str, full: dict[str, int]) -> torch.nn.Module:
    return clip(size, full, transformers.CLIPTextModelWithProjection)


def t5(size: str) -> torch.nn.Module:
    shape = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    return transformers.T5EncoderModel(transformers.T5Config(**T5[size], **shape))


def words() -> Any:
    """The embedded model's tokenizer, with as many tokens a prompt as CLIP's."""
    return transformers.CLIPTokenizer.from_pretrained(embedded_model() / "tokenizer", model_max_length=77)


def letters() -> Any:
    """A token for each byte, in the place of T5's tokenizer."""
    special = ["<pad>", "</s>", "<unk>"]
    vocabulary = {token: index for index, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **named)


def vae(size: str, channels: int, pixels: int, scaling: float, shift: float | None = None) -> torch.nn.Module:
    widths = (128, 256, 512, 512) if size == "full" else (4, 4, 4, 4)
    of_transformer = {"use_quant_conv": False, "use_post_quant_conv": False} if shift is not None else {}
    return diffusers.AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2 if size == "full" else 1,
        norm_num_groups=32 if size == "full" else 2,
        latent_channels=channels if size == "full" else 4,
        sample_size=pixels if size == "full" else 64,
        scaling_factor=scaling,
        shift_factor=shift,
        **of_transformer,
    )


def ddim() -> Any:
    steps = {"steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False}
    return diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **steps)


# ---- pipelines ----


def sd15(size: str) -> Any:
    return diffusers.StableDiffusionPipeline(
        unet=denoiser("sd15", size),
        vae=vae(size, 4, 512, 0.18215),
        scheduler=ddim(),
        text_encoder=clip(size, CLIP_L),
        tokenizer=words(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(size: str) -> Any:
    return diffusers.StableDiffusionXLPipeline(
        unet=denoiser("sdxl", size),
        vae=vae(size, 4, 1024, 0.13025),
        scheduler=ddim(),
        text_encoder=clip(size, CLIP_L),
        text_encoder_2=projecting(size, BIG_G),
        tokenizer=words(),
        tokenizer_2=words(),
        add_watermarker=False,
    )


def sd35(size: str) -> Any:
    return diffusers.StableDiffusion3Pipeline(
        transformer=denoiser("sd35", size),
        vae=vae(size, 16, 1024, 1.5305, 0.0609),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=projecting(size, CLIP_L),
        text_encoder_2=projecting(size, BIG_G),
        text_encoder_3=t5(size),
        tokenizer=words(),
        tokenizer_2=words(),
        tokenizer_3=letters(),
    )


def flux(size: str) -> Any:
    shifting = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "shift": 3.0}
    return diffusers.FluxPipeline(
        transformer=denoiser("flux", size),
        vae=vae(size, 16, 1024, 0.3611, 0.1159),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**shifting, base_image_seq_len=256, max_image_seq_len=4096),
        text_encoder=clip(size, CLIP_L),
        text_encoder_2=t5(size),
        tokenizer=words(),
        tokenizer_2=letters(),
    )


@dataclass(frozen=True)
class Family:
    """How a pipeline is built, and the options that it needs beside a task's; `small` ones with few layers only."""

    build: Callable[[str], Any]
    options: dict[str, Any] = field(default_factory=dict)
    small: dict[str, Any] = field(default_factory=dict)

    def options_of(self, size: str) -> dict[str, Any]:
        return {**self.options, **(self.small if size == "small" else {})}


TINY_PICTURES = {"height": 64, "width": 64, "max_sequence_length": 24}
FAMILIES = {
    "sd15": Family(sd15),
    "sdxl": Family(sdxl),
    "sd35": Family(sd35, {"num_inference_steps": 28, "guidance_scale": 4.5}),
    "flux": Family(
        flux, {"num_inference_steps": 28, "guidance_scale": 3.5}, {"pipeline_kwargs": json.dumps(TINY_PICTURES)}
    ),
}


def write(name: str, folder: Path, size: str) -> None:
    """Write a pipeline; a full one is built in bfloat16, in half the memory, and on a GPU if there is one, which is faster."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if size == "full" else before)
    try:
        with torch.device("cuda" if size == "full" and torch.cuda.is_available() else "cpu"):
            pipeline = FAMILIES[name].build(size)
        pipeline.save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)


def command(name: str, folder: Path, size: str) -> str:
    """Return a command line that tries the pipeline: without a download, and with a run that is long enough to measure."""
    options = {
        "model": folder,
        "budget": "1h",
        "eval_reward_funcs": "jpeg_incompressibility",
        **({"bf16": "true"} if size == "full" else {"use_cpu": "true", "num_train_epochs": 1}),
        **FAMILIES[name].options_of(size),
    }
    flags = [text for option, value in options.items() for text in (f"--{option}", str(value))]
    return shlex.join(["ddpo", "reproduce", "compressibility", *flags, "--yes"])


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=FAMILIES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default=SIZES[0])
    given = parser.parse_args(arguments)
    write(given.name, given.folder, given.size)
    print(command(given.name, given.folder, given.size))


if __name__ == "__main__":
    main(sys.argv[1:])
