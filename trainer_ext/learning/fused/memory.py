"""What the fused pass retains of a rollout: one gradient for each image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...policy.recording.memory import Allocate, GrowingTensor


@dataclass(frozen=True)
class ImageGradients:
    """
    Gradients of the log-probabilities of B denoising runs, summed over the trained steps, in nats per latent element.

    Parameters:
        by_weight (`Mapping[str, torch.Tensor]`):
            The gradients `(B, ...)` of each trained weight, by its name in the trained module.
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


class GradientMemory:
    """
    Space for the gradients of B images, which are added batch by batch.

    Args:
        num_images (`int`):
            B.
        allocate (`Callable`):
            Makes an empty tensor of a shape and `dtype`.
    """

    def __init__(self, num_images: int, allocate: Allocate = torch.empty):
        self._rows: defaultdict[str, GrowingTensor] = defaultdict(lambda: GrowingTensor(num_images, allocate))

    def add(self, gradients: ImageGradients) -> None:
        """Write the gradients of the next images."""
        for name, value in gradients.by_weight.items():
            self._rows[name].add(value)

    def whole(self) -> ImageGradients:
        """Return the gradients of all images."""
        return ImageGradients({name: rows.whole() for name, rows in self._rows.items()})
