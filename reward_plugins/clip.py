"""CLIP, which puts images and texts into one space (arXiv:2103.00020), and models of its architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from .vision import load_image_processor, naming

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import BaseImageProcessor, CLIPModel, PreTrainedTokenizerBase

CLIP_L = "openai/clip-vit-large-patch14"
CLIP_L_REVISION = "32bd64288804d66eefd0ccbe215aa642df71cc41"


@final
@dataclass(frozen=True)
class Clip:
    """
    A CLIP model with its image processor and tokenizer.

    Parameters:
        model (`CLIPModel`):
            The model, in float32, for inference.
        image_processor (`BaseImageProcessor`):
            Resizes the short side with bicubic interpolation, crops the middle, and normalises.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer of the text encoder.
    """

    model: CLIPModel
    image_processor: BaseImageProcessor
    tokenizer: PreTrainedTokenizerBase

    def embed_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the embeddings of B images, float32 `(B, D)` of length 1, without gradients."""
        import torch

        pixels = self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return _unit(self.model.get_image_features(pixel_values=pixels.to(self.model.device)))

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """
        Return the embeddings of B texts, float32 `(B, D)` of length 1, without gradients.

        CLIP reads 77 tokens, about 50 words, including the two that mark start and end; it ignores the rest of a longer text.
        """
        import torch

        limit = self.model.text_model.embeddings.position_embedding.num_embeddings
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        with torch.inference_mode():
            return _unit(self.model.get_text_features(**tokens.to(self.model.device)))

    def similarity(self, images: Sequence[Image.Image], texts: Sequence[str]) -> torch.Tensor:
        """Return the cosine `(B,)` of B images and their texts, times the model's scale: 100 in published models."""
        import torch

        with torch.inference_mode():
            cosine = (self.embed_images(images) * self.embed_texts(texts)).sum(dim=1)
            return self.model.logit_scale.exp() * cosine


def load_clip(model: str, revision: str, device: torch.device | str, processor: str, processor_revision: str) -> Clip:
    """
    Load a CLIP model in float32.

    Args:
        model (`str`):
            Hub id or folder of the weights.
        revision (`str`):
            Its commit on the Hub.
        device (`torch.device` or `str`):
            Where the model is put.
        processor (`str`):
            Hub id or folder of the tokenizer and of the image processor's settings.
        processor_revision (`str`):
            Its commit on the Hub.

    Raises:
        `OSError`: there is no such model, or no way to reach it.
    """
    import torch
    from transformers import AutoTokenizer, CLIPModel

    with naming(model, revision):
        loaded = CLIPModel.from_pretrained(model, revision=revision, dtype=torch.float32)
    with naming(processor, processor_revision):
        tokenizer = AutoTokenizer.from_pretrained(processor, revision=processor_revision)
    loaded.to(device)  # type: ignore[arg-type] # because of transformers' decorator
    return Clip(loaded.eval(), load_image_processor(processor, processor_revision), tokenizer)


def _unit(features: Any) -> torch.Tensor:
    """Normalise what a model returns: a tensor `(B, D)` up to transformers 4, an object that holds it since 5."""
    import torch

    embeddings = features if isinstance(features, torch.Tensor) else features.pooler_output
    return embeddings / embeddings.norm(dim=-1, keepdim=True)
