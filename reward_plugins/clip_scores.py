"""Rewards for how well an image fits its prompt, by CLIP and by models like it that were trained on people's choices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ddpo_plugins import Reward, RewardSpec

from .clip import CLIP_L, CLIP_L_REVISION, load_clip
from .vision import batches

if TYPE_CHECKING:
    import torch
    from PIL import Image


def similarity(
    device: torch.device | str, model: str, revision: str, processor: str, processor_revision: str, batch_size: int = 32
) -> Reward:
    """
    Build a reward: the cosine of an image's and its prompt's embeddings, times the model's scale, which is 100.

    Args:
        device (`torch.device` or `str`):
            Where the model is put.
        model (`str`):
            Hub id or folder of a CLIP model.
        revision (`str`):
            Its commit on the Hub.
        processor (`str`):
            Hub id or folder of the tokenizer and of the image processor's settings.
        processor_revision (`str`):
            Its commit on the Hub.
        batch_size (`int`):
            Images embedded at once.

    Raises:
        `OSError`: a model is not there.
    """
    clip = load_clip(model, revision, device, processor, processor_revision)

    def score(images: list[Image.Image], prompts: list[str], **columns: Any) -> list[float]:
        pairs = zip(batches(images, batch_size), batches(prompts, batch_size), strict=True)
        return [value for batch in pairs for value in clip.similarity(*batch).tolist()]

    return score


#: Hessel et al., arXiv:2104.08718, whose CLIPScore is 2.5 times the cosine and is cut at 0.
clip_score = partial(
    similarity, model=CLIP_L, revision=CLIP_L_REVISION, processor=CLIP_L, processor_revision=CLIP_L_REVISION
)

#: Kirstain et al., arXiv:2305.01569: CLIP-H, trained on the choices in Pick-a-Pic.
pick_score = partial(
    similarity,
    model="yuvalkirstain/PickScore_v1",
    revision="a4e4367c6dfa7288a00c550414478f865b875800",
    processor="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    processor_revision="1c2b8495b28150b8a4922ee1c8edee224c284c0c",
)

#: Wu et al., arXiv:2306.09341: CLIP-H, trained on the choices in HPD v2. Its authors publish weights for their own library;
#: these are a conversion by someone else. Images that are not square are cropped here, padded by the authors.
hps_v2 = partial(
    similarity,
    model="adams-story/HPSv2-hf",
    revision="main",
    processor=CLIP_L,
    processor_revision=CLIP_L_REVISION,
)

REWARDS = (
    RewardSpec("clip_score", clip_score, "Cosine similarity of image and prompt by CLIP ViT-L/14, times 100."),
    RewardSpec(
        "pick_score", pick_score, "PickScore: how likely people are to choose the image for its prompt, about 15 to 25."
    ),
    RewardSpec("hps_v2", hps_v2, "Human Preference Score v2, times 100, about 20 to 35."),
)
