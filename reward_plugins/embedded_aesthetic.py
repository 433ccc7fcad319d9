"""A stand-in for LAION's aesthetic score, offline: one artist's style is what it likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpo_plugins import Reward, RewardSpec

from .embedded_judge import load_judge, shipped_judge
from .vision import batches

if TYPE_CHECKING:
    import torch
    from PIL import Image

HEAD_FILE = "model.safetensors"


def embedded_aesthetic(device: torch.device | str, batch_size: int = 128) -> Reward:
    """
    Build the reward: a linear head on the features of the embedded model's judge, about 0 to 1 and without limits.

    It knows nothing of beauty. The embedded model's world is drawn with the emoji of two artists; the head was fitted to say 1
    of pictures of Fluent's and 0 of Noto's. As LAION's aesthetic score does for the taste of its raters, it has a style that
    it likes, is the same for every prompt, and can be driven beyond what any picture of that style gets.

    Args:
        device (`torch.device` or `str`):
            Device for the model, a ResNet of 1.3 M parameters.
        batch_size (`int`):
            Images judged at once.
    """
    from safetensors.torch import load_file

    judge = load_judge(shipped_judge(), device)
    head = load_file(shipped_judge("taste") / HEAD_FILE, device=str(device))

    def score(images: list[Image.Image], **columns: Any) -> list[float]:
        import torch

        with torch.inference_mode():
            return [
                value
                for batch in batches(images, batch_size)
                for value in (judge.features(batch) @ head["weight"] + head["bias"]).tolist()
            ]

    return score


REWARDS = (
    RewardSpec(
        "embedded_aesthetic",
        embedded_aesthetic,
        "How much an image of the embedded model looks like one artist's emoji, about 0 to 1: a taste, offline.",
    ),
)
