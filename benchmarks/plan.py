"""
From one GPU to 64, on paper: the seconds of one epoch, by the floating-point operations of real networks without their weights.

    python benchmarks/plan.py

Networks are built from their configurations on torch's meta device, and one forward pass of each is counted. Nothing is measured;
ASSUMED says what is taken for granted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode

#: A H100 at 40 % of its dense bfloat16 peak; 400 Gbit/s between machines of 8, at 80 %; a reward of 20 ms an image, on each GPU.
ASSUMED = {"flops": 0.4 * 989e12, "bytes_per_second": 0.8 * 50e9, "reward_seconds": 0.02, "disk": 1e9}
IMAGES = 512  # of a rollout, over all GPUs
LORA_RANK = 16


@dataclass(frozen=True)
class Model:
    """A network with its pipeline's usual settings; `branches` is 2 with classifier-free guidance."""

    name: str
    build: Callable[[], Any]
    inputs: Callable[[], dict[str, Any]]
    steps: int
    branches: int


def unet(**config: Any) -> Any:
    return diffusers.UNet2DConditionModel(sample_size=64, **config)


def sdxl() -> Any:
    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
    }
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    return unet(**blocks, **added, cross_attention_dim=2048, use_linear_projection=True)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, device="meta", dtype=torch.bfloat16)


def of_unet(size: int, width: int, **more: Any) -> dict[str, Any]:
    return {
        "sample": zeros(1, 4, size, size),
        "timestep": zeros(1),
        "encoder_hidden_states": zeros(1, 77, width),
        **more,
    }


def of_flux() -> dict[str, Any]:
    return {
        "hidden_states": zeros(1, 4096, 64), "encoder_hidden_states": zeros(1, 512, 4096), "pooled_projections": zeros(1, 768),
        "timestep": zeros(1), "guidance": zeros(1), "img_ids": zeros(4096, 3), "txt_ids": zeros(512, 3),
    }  # fmt: skip


MODELS = (
    Model(
        "Stable Diffusion 1.5, 512 x 512",
        lambda: unet(cross_attention_dim=768, attention_head_dim=8),
        lambda: of_unet(64, 768),
        50,
        2,
    ),
    Model(
        "SDXL, 1024 x 1024",
        sdxl,
        lambda: of_unet(128, 2048, added_cond_kwargs={"text_embeds": zeros(1, 1280), "time_ids": zeros(1, 6)}),
        30,
        2,
    ),
    Model(
        "FLUX.1-dev, 1024 x 1024",
        lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True),
        of_flux,
        20,
        1,
    ),
)


@dataclass(frozen=True)
class Size:
    """Parameters, those of a LoRA adapter of the attention projections, and operations of one forward pass."""

    parameters: int
    adapter: int
    flops: int


def size_of(model: Model) -> Size:
    with torch.device("meta"):
        network = model.build().to(torch.bfloat16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(**model.inputs())
    linear = [(name, each) for name, each in network.named_modules() if isinstance(each, torch.nn.Linear)]
    attention = [each for name, each in linear if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))]
    adapter = sum(LORA_RANK * (each.in_features + each.out_features) for each in attention)
    return Size(sum(each.numel() for each in network.parameters()), adapter, counter.get_total_flops())


def seconds(model: Model, size: Size, gpus: int) -> dict[str, float]:
    """Seconds of one epoch with one update, by part; training has a forward and a backward pass of twice its cost."""
    passes = model.steps * model.branches * IMAGES / gpus
    sync = 2 * (gpus - 1) / gpus * 4 * size.adapter / ASSUMED["bytes_per_second"]
    return {
        "rollout": passes * size.flops / ASSUMED["flops"],
        "reward": IMAGES / gpus * ASSUMED["reward_seconds"],
        "training": 3 * passes * size.flops / ASSUMED["flops"],
        "gradients": sync,
        "checkpoint": 3 * 4 * size.adapter / ASSUMED["disk"],
    }


def main() -> None:
    sizes = {model: size_of(model) for model in MODELS}
    print("| network | parameters | LoRA of rank 16 | a forward pass | all weights with AdamW | frozen, bfloat16 |")
    print("|-|-|-|-|-|-|")
    for model, size in sizes.items():
        row = (
            f"{size.parameters / 1e9:.2f} billion",
            f"{size.adapter / 1e6:.1f} million",
            f"{size.flops / 1e12:.2f} TFLOP",
            f"{16 * size.parameters / 1e9:.0f} GB",
            f"{2 * size.parameters / 1e9:.0f} GB",
        )
        print(f"| {model.name} | {' | '.join(row)} |")
    print(
        "\n| network | GPUs | rollout, s | reward, s | training, s | gradients, ms | checkpoint, ms |\n|-|-|-|-|-|-|-|"
    )
    for model, size in sizes.items():
        for gpus in (1, 8, 64):
            of = seconds(model, size, gpus)
            epoch = " | ".join(f"{of[part]:.1f}" for part in ("rollout", "reward", "training"))
            print(f"| {model.name} | {gpus} | {epoch} | {1000 * of['gradients']:.1f} | {1000 * of['checkpoint']:.0f} |")


if __name__ == "__main__":
    main()
