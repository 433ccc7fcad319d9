"""The record of denoising runs, from which any of their steps can be replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ..transitions.gaussian import TransitionTable
from .conditioning import Conditioning


@dataclass(frozen=True)
class FinalLatents:
    """
    The results of B denoising runs, without the steps in between.

    Parameters:
        latents (`torch.Tensor` of shape `(B, ...)`, float32):
            The latents that were decoded.
        conditioning ([`Conditioning`]):
            The denoiser's other arguments.
    """

    latents: torch.Tensor
    conditioning: Conditioning

    def __len__(self) -> int:
        return len(self.latents)

    def rows(self) -> dict[str, torch.Tensor]:
        """Return the tensors that have a row for each image, by their names."""
        return {"latents": self.latents}

    def holding(self, rows: Mapping[str, torch.Tensor], conditioning: Conditioning) -> FinalLatents:
        """Return final latents of the same policy with other rows."""
        return FinalLatents(rows["latents"], conditioning)


@dataclass(frozen=True)
class Trajectory:
    """
    B denoising runs of T steps each.

    Parameters:
        table ([`TransitionTable`]):
            Coefficients of the steps, frozen when the rollout was made.
        latents (`torch.Tensor` of shape `(B, T + 1, ...)`, float32):
            The latents from pure noise to those that were decoded.
        model_outputs (`torch.Tensor` of shape `(B, T, ...)`):
            The guided predictions that sampled them.
        conditioning ([`Conditioning`]):
            The denoiser's other arguments.
    """

    table: TransitionTable
    latents: torch.Tensor
    model_outputs: torch.Tensor
    conditioning: Conditioning

    def __post_init__(self) -> None:
        expected = (self.latents.shape[0], self.table.num_steps)
        if self.model_outputs.shape[:2] != expected or self.latents.shape[1] != expected[1] + 1:
            raise ValueError(
                f"latents {tuple(self.latents.shape)} and model outputs {tuple(self.model_outputs.shape)} do not fit a "
                f"table of {self.table.num_steps} steps."
            )

    def __len__(self) -> int:
        return len(self.latents)

    def cpu(self) -> Trajectory:
        """Move everything to host memory."""
        return Trajectory(self.table, self.latents.cpu(), self.model_outputs.cpu(), self.conditioning.cpu())

    def final_latents(self) -> FinalLatents:
        """Keep only the final latents."""
        # Cloned: a view would hold the full trajectory in memory.
        return FinalLatents(self.latents[:, -1].clone(), self.conditioning)

    def rows(self) -> dict[str, torch.Tensor]:
        """Return the tensors that have a row for each image, by their names."""
        return {"latents": self.latents, "model_outputs": self.model_outputs}

    def holding(self, rows: Mapping[str, torch.Tensor], conditioning: Conditioning) -> Trajectory:
        """Return runs of the same policy with other rows."""
        return Trajectory(self.table, rows["latents"], rows["model_outputs"], conditioning)

    def by_prompt(self, num_images_per_prompt: int) -> Trajectory:
        """Keep the conditioning of each prompt once; see [`Conditioning.by_prompt`]."""
        return replace(self, conditioning=self.conditioning.by_prompt(num_images_per_prompt))
