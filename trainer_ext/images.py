"""Images as tensors and as PIL images."""

from __future__ import annotations

import torch
from PIL import Image

from .errors import PipelineError


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    """Turn uint8 images `(B, H, W, 3)` into PIL images."""
    return [Image.fromarray(image) for image in images.numpy()]


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """
    Round images `(B, 3, H, W)` or videos of one frame `(B, 1, 3, H, W)`, in [0, 1], to uint8 `(B, H, W, 3)` on the host, as
    diffusers does for PIL.

    Raises:
        [`PipelineError`]: they have another form.
    """
    if isinstance(images, torch.Tensor) and images.dim() == 5 and images.shape[1] == 1:
        images = images.squeeze(1)
    if not isinstance(images, torch.Tensor) or images.dim() != 4 or images.shape[1] != 3:
        made = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise PipelineError(
            f"The pipeline made {made}; DDPO trains pipelines that make RGB images (B, 3, H, W), or videos of one frame "
            "(pipeline_kwargs with num_frames=1, where the pipeline has it)."
        )
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()
