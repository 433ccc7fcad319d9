"""What the fused pass retains of a rollout: one gradient for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ImageGradients:
    """
    Gradients of the log-probabilities of B denoising runs, summed over the trained steps, in nats per latent element.

    Parameters:
        by_weight (`Mapping[str, torch.Tensor]`):
            For each trained weight, by its name in the trained module, the gradients `(B, ...)`.
    """

    by_weight: Mapping[str, torch.Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.by_weight.values())))

    def cpu(self) -> ImageGradients:
        """Move everything to host memory."""
        return ImageGradients({name: value.cpu() for name, value in self.by_weight.items()})

    def weighted(self, weights: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the sum of the gradients of `images` `(b,)`, each times its weight `(b,)`, for each trained weight."""
        return {
            name: torch.tensordot(weights.to(value), value[images], dims=1) for name, value in self.by_weight.items()
        }

    @staticmethod
    def concatenate(parts: Sequence[ImageGradients]) -> ImageGradients:
        """Join the gradients of several batches, image by image."""
        names = parts[0].by_weight
        return ImageGradients({name: torch.cat([part.by_weight[name] for part in parts]) for name in names})
