"""The denoiser's arguments in recorded runs, image by image, so that any of its calls can be repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..transfer import to_device
from .calls import CallLayout, DenoiserCall
from .verdicts import is_same


@dataclass(frozen=True)
class CallRecord:
    """
    One denoiser call of every step, without its latents.

    Parameters:
        per_image (`Mapping[str, torch.Tensor | list | None]`):
            Arguments with rows for each image: tensors `(B, copies, ...)`, or B lists of `copies`.
        shared (`Mapping[str, Any]`):
            Arguments that are the same for all images and steps.
        timesteps (`torch.Tensor` of shape `(T,)`):
            The timestep argument at each step.
        num_images (`int`):
            B.
    """

    per_image: Mapping[str, Any]
    shared: Mapping[str, Any]
    timesteps: torch.Tensor
    num_images: int

    def __len__(self) -> int:
        return self.num_images

    @classmethod
    def first(cls, layout: CallLayout, call: DenoiserCall) -> CallRecord:
        """Record the call of the first step."""
        rest = {k: v for k, v in call.arguments.items() if k not in (layout.latents_name, layout.time_name)}
        per_image = {k: images_first(v, layout.copies) for k, v in rest.items() if k in layout.per_image}
        shared = {k: v for k, v in rest.items() if k not in layout.per_image}
        num_images = len(call.arguments[layout.latents_name]) // layout.copies
        return cls(per_image, shared, call.arguments[layout.time_name].reshape(-1)[:1].clone(), num_images)

    def row(self, index: int) -> CallRecord:
        """Return the record of one row."""
        rows = {
            name: value[index : index + 1].clone()
            if isinstance(value, torch.Tensor)
            else value and value[index : index + 1]
            for name, value in self.per_image.items()
        }
        return CallRecord(rows, self.shared, self.timesteps, 1)

    def cpu(self) -> CallRecord:
        """Move everything to host memory."""
        per_image, shared = to_device(dict(self.per_image), "cpu"), to_device(dict(self.shared), "cpu")
        return CallRecord(per_image, shared, self.timesteps.cpu(), self.num_images)

    def by_prompt(self, num_images_per_prompt: int) -> CallRecord | None:
        """Keep the first of so many consecutive images each; `None` if they are not all alike."""
        first = {name: _every(value, num_images_per_prompt) for name, value in self.per_image.items()}
        if not all(
            is_same(value, _repeated(first[name], num_images_per_prompt)) for name, value in self.per_image.items()
        ):
            return None
        return CallRecord(first, self.shared, self.timesteps, self.num_images // num_images_per_prompt)

    def arguments(
        self, layout: CallLayout, latents: torch.Tensor, rows: torch.Tensor, steps: torch.Tensor
    ) -> dict[str, Any]:
        """Return the denoiser's arguments for N images `rows` at N `steps`, all mixed in one batch."""
        timesteps = self.timesteps[steps].repeat(layout.copies)
        arguments = {
            layout.latents_name: layout.latents_argument(latents),
            layout.time_name: timesteps,
            **{name: branches_first(value, rows) for name, value in self.per_image.items()},
            **self.shared,
        }
        return {name: to_device(value, latents.device) for name, value in arguments.items()}


@dataclass(frozen=True)
class Conditioning:
    """
    The denoiser calls of B images, in groups that fit in one batch.

    There is one group where all prompts are padded to one length. Pipelines that pad to the longest prompt of a batch make
    one for each length.

    Parameters:
        groups (`tuple[tuple[CallRecord, ...], ...]`):
            One record for each denoiser call of a step, for each group.
        group_of, row_of (`torch.Tensor` of shape `(B,)`, int64):
            Group of each image, and its row there.
    """

    groups: tuple[tuple[CallRecord, ...], ...]
    group_of: torch.Tensor
    row_of: torch.Tensor

    @classmethod
    def of_batch(cls, calls: tuple[CallRecord, ...], num_images: int) -> Conditioning:
        """Return the conditioning of one batch of the pipeline."""
        return cls((calls,), torch.zeros(num_images, dtype=torch.int64), torch.arange(num_images))

    def select(self, rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, tuple[CallRecord, ...], torch.Tensor]]:
        """Split images `rows` `(N,)` by group: positions in `rows` `(n,)`, the group's records, rows there `(n,)`."""
        for group, calls in enumerate(self.groups):
            positions = (self.group_of[rows] == group).nonzero().flatten()
            if len(positions):
                yield positions, calls, self.row_of[rows[positions]]

    def by_prompt(self, num_images_per_prompt: int) -> Conditioning:
        """
        Keep the arguments of each prompt once, for its images in a row, in place of once for each image. Nothing changes where
        images of a prompt have different ones, or there are other groups than those of one batch.
        """
        if num_images_per_prompt == 1 or len(self.groups) > 1 or len(self.row_of) % num_images_per_prompt:
            return self
        compact = [call.by_prompt(num_images_per_prompt) for call in self.groups[0]]
        calls = tuple(call for call in compact if call is not None)
        if len(calls) < len(compact):
            return self
        return Conditioning((calls,), self.group_of, self.row_of // num_images_per_prompt)

    def cpu(self) -> Conditioning:
        """Move everything to host memory."""
        return Conditioning(
            tuple(tuple(call.cpu() for call in calls) for calls in self.groups), self.group_of, self.row_of
        )


def fit(first: CallRecord, other: CallRecord) -> bool:
    """Return whether two records can be rows of one batch."""
    return all(is_same(value, other.shared[name]) for name, value in first.shared.items()) and all(
        _row_shape(value) == _row_shape(other.per_image[name]) for name, value in first.per_image.items()
    )


def _row_shape(value: Any) -> Any:
    return value.shape[1:] if isinstance(value, torch.Tensor) else type(value)


def images_first(value: Any, copies: int) -> Any:
    """Rearrange `copies` blocks of B rows into B groups of `copies` rows."""
    if value is None:  # for example a mask that is left out because no prompt of this batch is padded
        return None
    if isinstance(value, torch.Tensor):
        return value.unflatten(0, (copies, -1)).transpose(0, 1)
    num_images = len(value) // copies
    return [[value[copy * num_images + image] for copy in range(copies)] for image in range(num_images)]


def _every(value: Any, number: int) -> Any:
    """Return the first of so many rows each."""
    if isinstance(value, torch.Tensor):
        return value[::number].clone()  # a view would hold all rows in memory
    return None if value is None else value[::number]


def _repeated(value: Any, number: int) -> Any:
    """Undo [`_every`] where the rows were alike."""
    if isinstance(value, torch.Tensor):
        return value.repeat_interleave(number, 0)
    return None if value is None else [row for row in value for _ in range(number)]


def branches_first(value: Any, rows: torch.Tensor) -> Any:
    """Undo [`images_first`], for the images `rows` `(N,)`."""
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        return value[rows.to(value.device)].transpose(0, 1).flatten(0, 1)
    chosen = [value[row] for row in rows.tolist()]
    return [group[copy] for copy in range(len(chosen[0])) for group in chosen]
