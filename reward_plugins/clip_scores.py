"""How well an image fits its prompt, by CLIP and by models of its architecture that learnt from people's choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpo_plugins import Reward, RewardSpec

from .clip import CLIP_L, CLIP_L_REVISION, Clip, load_clip
from .vision import batches

if TYPE_CHECKING:
    import torch
    from PIL import Image

CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
CLIP_H_REVISION = "1c2b8495b28150b8a4922ee1c8edee224c284c0c"


def clip_score(
    device: torch.device | str,
    model: str = CLIP_L,
    revision: str = CLIP_L_REVISION,
    processor: str = CLIP_L,
    processor_revision: str = CLIP_L_REVISION,
    batch_size: int = 32,
) -> Reward:
    """Build CLIP's own score (Hessel et al., arXiv:2104.08718, but for their factor and cut at 0); see [`similarity`]."""
    return similarity(load_clip(model, revision, device, processor, processor_revision), batch_size)


def pick_score(
    device: torch.device | str,
    model: str = "yuvalkirstain/PickScore_v1",
    revision: str = "a4e4367c6dfa7288a00c550414478f865b875800",
    processor: str = CLIP_H,
    processor_revision: str = CLIP_H_REVISION,
    batch_size: int = 32,
) -> Reward:
    """Build PickScore (Kirstain et al., arXiv:2305.01569): CLIP-H, trained on the choices in Pick-a-Pic."""
    return similarity(load_clip(model, revision, device, processor, processor_revision), batch_size)


def hps_v2(
    device: torch.device | str,
    model: str = "adams-story/HPSv2-hf",
    revision: str = "main",
    processor: str = CLIP_L,
    processor_revision: str = CLIP_L_REVISION,
    batch_size: int = 32,
) -> Reward:
    """
    Build HPS v2 (Wu et al., arXiv:2306.09341): CLIP-H, trained on the choices in HPD v2.

    Its authors publish weights for a library of their own; the default model is somebody's conversion of them. Images
    that are not square are cropped here, and padded by the authors.
    """
    return similarity(load_clip(model, revision, device, processor, processor_revision), batch_size)


def similarity(clip: Clip, batch_size: int) -> Reward:
    """
    Return a reward: the cosine of an image's and its prompt's embeddings, times the model's scale, which is 100.

    Args:
        clip ([`Clip`]):
            What embeds both.
        batch_size (`int`):
            Images embedded at once.
    """
    scale = clip.scale

    def score(images: list[Image.Image], prompts: list[str], **columns: Any) -> list[float]:
        return [
            scale * cosine
            for batch in batches(list(zip(images, prompts, strict=True)), batch_size)
            for cosine in _cosines(clip, *map(list, zip(*batch, strict=True)))
        ]

    return score


def _cosines(clip: Clip, images: list[Image.Image], prompts: list[str]) -> list[float]:
    return (clip.embed_images(images) * clip.embed_texts(prompts)).sum(dim=1).tolist()


REWARDS = (
    RewardSpec("clip_score", clip_score, "Cosine similarity of image and prompt by CLIP ViT-L/14, times 100."),
    RewardSpec("pick_score", pick_score, "PickScore: which image of a prompt people would choose, about 15 to 25."),
    RewardSpec("hps_v2", hps_v2, "Human Preference Score v2, times 100, about 20 to 35."),
)
