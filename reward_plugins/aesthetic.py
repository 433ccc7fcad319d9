"""The aesthetic score of LAION, as in the DDPO paper (arXiv:2305.13301): a linear network on CLIP's image embedding."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ddpo_plugins import Reward, RewardSpec

from .clip import CLIP_L, CLIP_L_REVISION, load_clip
from .vision import batches, naming

if TYPE_CHECKING:
    import torch
    from PIL import Image

WIDTHS = (768, 1024, 128, 64, 16, 1)
#: Names of the linear layers in the published file. The dropouts between them, 1, 3 and 5, do nothing in scoring.
LAYERS = ("0", "2", "4", "6", "7")

HEAD_FILE = "aesthetic-model.pth"


def aesthetic(
    device: torch.device | str,
    model: str = CLIP_L,
    revision: str = CLIP_L_REVISION,
    head: str = "trl-lib/ddpo-aesthetic-predictor",
    head_revision: str = "cf4bd10345610935a80a5d3be9a3133c50f121e4",
    batch_size: int = 32,
) -> Reward:
    """
    Build the reward: about 1 to 10; higher means more beautiful in the eyes of those who rated the training images.

    Args:
        device (`torch.device` or `str`):
            Where the models are put.
        model (`str`):
            Hub id or folder of CLIP ViT-L/14.
        revision (`str`):
            Its commit on the Hub.
        head (`str`):
            Hub id or folder with `aesthetic-model.pth`.
        head_revision (`str`):
            Its commit on the Hub.
        batch_size (`int`):
            Images embedded at once.

    Raises:
        `OSError`: a model is not there.
        `ValueError`: the CLIP model's embeddings do not have the size that the head takes.
    """
    clip = load_clip(model, revision, device, model, revision)
    if clip.model.config.projection_dim != WIDTHS[0]:
        raise ValueError(
            f"The aesthetic head takes CLIP embeddings of {WIDTHS[0]} numbers; those of {model!r} have "
            f"{clip.model.config.projection_dim}. Use {CLIP_L!r}."
        )
    layers = load_head(head, head_revision).to(device)

    def score(images: list[Image.Image], **columns: Any) -> list[float]:
        import torch

        with torch.inference_mode():
            return [
                value
                for batch in batches(images, batch_size)
                for value in layers(clip.embed_images(batch)).squeeze(1).tolist()
            ]

    return score


def load_head(head: str, revision: str) -> torch.nn.Sequential:
    """
    Load the network that turns an image embedding `(B, 768)` of length 1 into a score `(B, 1)`.

    Raises:
        `OSError`: the file is not there.
        `RuntimeError`: it holds different layers.
        `pickle.UnpicklingError`: it holds something other than tensors.
    """
    import torch
    from transformers.utils.hub import cached_file

    linear = [torch.nn.Linear(width, next_width) for width, next_width in pairwise(WIDTHS)]
    layers = torch.nn.Sequential(OrderedDict(zip(LAYERS, linear, strict=True)))
    with naming(head, revision):
        file = str(cached_file(head, HEAD_FILE, revision=revision))
    state = torch.load(file, map_location="cpu", weights_only=True)
    torch.nn.ModuleDict({"layers": layers}).load_state_dict(state)
    return layers.requires_grad_(False).eval()


REWARDS = (RewardSpec("aesthetic", aesthetic, "LAION's aesthetic score of CLIP's image embedding, about 1 to 10."),)
