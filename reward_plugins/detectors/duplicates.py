"""Detector of images that nearly repeat another image of their prompt, by the features of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ddpo_plugins import DetectorSpec, Reward
from ddpo_plugins.prompt_rows import images_of

from ..embedded_judge import load_judge, shipped_judge
from ..vision import batches, load_image_processor, naming

if TYPE_CHECKING:
    import torch
    from PIL import Image


FAR_FOR_THE_JUDGE = (
    0.06  #: mean cosine distance of an image of the embedded model from the nearest of eight of its prompt
)


def near_duplicates(
    device: torch.device | str,
    model: str | None = None,
    revision: str = "main",
    far: float | None = None,
    batch_size: int = 32,
) -> Reward:
    """
    Build the detector: 1 - min(1, distance / far), where distance is the cosine distance of an image's features from those of
    the nearest other image of its prompt.

    1 for an image that repeats another; `None` for the only image of its prompt. It sees the images of one call, so put those of
    a prompt into one batch.

    Args:
        device (`torch.device` or `str`):
            Device for the network.
        model (`str`, *optional*):
            Hub id or folder of a network of transformers that sums up an image, such as `"facebook/dinov2-small"`. By default the
            judge of the embedded model, which ships: it was trained on small emoji, and knows nothing else.
        revision (`str`):
            Its commit on the Hub.
        far (`float`, *optional*):
            Cosine distance at and above which two images have nothing in common: 1 by default, and 0.06 for the judge, whose
            features are alike for all images.
        batch_size (`int`):
            Images that go through the network at once.

    Raises:
        `OSError`: the network is not there.
        `ValueError`: `far` is not above 0, or the network's pooling has no weights.
    """
    if far is None:
        far = FAR_FOR_THE_JUDGE if model is None else 1.0
    if not far > 0:
        raise ValueError(f"far is {far}; it must be greater than 0: a cosine distance, such as 0.5.")
    embed = load_judge(shipped_judge(), device).features if model is None else load_embedding(model, revision, device)

    def detect(images: list[Image.Image], prompts: list[str], **columns: Any) -> list[float | None]:
        import torch

        features = [row.float().cpu() for batch in batches(images, batch_size) for row in embed(batch)]
        found: list[float | None] = [None] * len(images)
        for members in images_of(prompts).values():
            if len(members) > 1:
                distances = nearest_distances(torch.stack([features[index] for index in members]))
                for index, distance in zip(members, distances.tolist(), strict=True):
                    found[index] = 1 - min(1.0, distance / far)
        return found

    return detect


def nearest_distances(features: torch.Tensor) -> torch.Tensor:
    """Return the smallest 1 - cosine of each row of features `(n, D)` with another row, in [0, 2], `(n,)`; n is at least 2."""
    import torch

    directions = torch.nn.functional.normalize(features, dim=1)
    cosines = (directions @ directions.T).fill_diagonal_(-1.0)
    return (1 - cosines.amax(dim=1)).clamp(min=0.0)


def load_embedding(
    model: str, revision: str, device: torch.device | str
) -> Callable[[Sequence[Image.Image]], torch.Tensor]:
    """
    Load a network that maps images to what its pooling gives, `(B, D)`.

    Raises:
        `OSError`: it is not there.
        `ValueError`: its pooling has no weights.
    """
    import torch
    from transformers import AutoModel

    with naming(model, revision):
        network, loaded = AutoModel.from_pretrained(
            model, revision=revision, dtype=torch.float32, output_loading_info=True
        )
    if missing := sorted(loaded["missing_keys"]):
        raise ValueError(
            f"{model!r} has no weights for {', '.join(missing[:3])}, so that what sums up an image would be random. Use "
            "a network that was saved with its pooling, such as 'facebook/dinov2-small'."
        )
    network.to(device).eval()
    processor = load_image_processor(model, revision)

    def embed(images: Sequence[Image.Image]) -> torch.Tensor:
        pixels = processor(images=list(images), return_tensors="pt")["pixel_values"].to(device)
        with torch.inference_mode():
            return network(pixel_values=pixels).pooler_output.flatten(1)

    return embed


DETECTORS = (
    DetectorSpec(
        "near_duplicates",
        near_duplicates,
        "How much does an image resemble the nearest other one of its prompt, by a network's features? For diversity_shaping.",
    ),
)
