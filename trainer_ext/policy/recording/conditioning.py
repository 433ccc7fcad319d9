"""The denoiser's arguments in recorded runs, image by image, so that any of its calls can be repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

    def cpu(self) -> CallRecord:
        """Move everything to host memory."""
        per_image, shared = to_device(dict(self.per_image), "cpu"), to_device(dict(self.shared), "cpu")
        return CallRecord(per_image, shared, self.timesteps.cpu(), self.num_images)

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

    def cpu(self) -> Conditioning:
        """Move everything to host memory."""
        return Conditioning(
            tuple(tuple(call.cpu() for call in calls) for calls in self.groups), self.group_of, self.row_of
        )

    @staticmethod
    def concatenate(parts: Sequence[Conditioning]) -> Conditioning:
        """Join the conditioning of several batches, image by image."""
        members: list[list[tuple[CallRecord, ...]]] = []
        group_of, row_of = [], []
        for part in parts:
            groups, firsts = zip(*(_enter(members, calls) for calls in part.groups), strict=True)
            group_of.append(torch.tensor(groups)[part.group_of])
            row_of.append(torch.tensor(firsts)[part.group_of] + part.row_of)
        joined = tuple(tuple(_join_calls(calls) for calls in zip(*group, strict=True)) for group in members)
        return Conditioning(joined, torch.cat(group_of), torch.cat(row_of))


def _enter(members: list[list[tuple[CallRecord, ...]]], calls: tuple[CallRecord, ...]) -> tuple[int, int]:
    """Add records to the first group that they fit in, or to a new one; return it, and their first row there."""
    for index, group in enumerate(members):
        if all(_fit(*pair) for pair in zip(group[0], calls, strict=True)):
            first = sum(len(other[0]) for other in group)
            group.append(calls)
            return index, first
    members.append([calls])
    return len(members) - 1, 0


def _fit(first: CallRecord, other: CallRecord) -> bool:
    """Return whether two records can be rows of one batch."""
    return all(is_same(value, other.shared[name]) for name, value in first.shared.items()) and all(
        _row_shape(value) == _row_shape(other.per_image[name]) for name, value in first.per_image.items()
    )


def _join_calls(calls: Sequence[CallRecord]) -> CallRecord:
    per_image = {name: _join([call.per_image[name] for call in calls]) for name in calls[0].per_image}
    return CallRecord(per_image, calls[0].shared, calls[0].timesteps, sum(len(call) for call in calls))


def _row_shape(value: Any) -> Any:
    return value.shape[1:] if isinstance(value, torch.Tensor) else type(value)


def _join(values: Sequence[Any]) -> Any:
    if values[0] is None:
        return None
    if isinstance(values[0], torch.Tensor):
        return torch.cat(list(values))
    return [row for value in values for row in value]


def images_first(value: Any, copies: int) -> Any:
    """Rearrange `copies` blocks of B rows into B groups of `copies` rows."""
    if value is None:  # for example a mask that is left out because no prompt of this batch is padded
        return None
    if isinstance(value, torch.Tensor):
        return value.unflatten(0, (copies, -1)).transpose(0, 1)
    num_images = len(value) // copies
    return [[value[copy * num_images + image] for copy in range(copies)] for image in range(num_images)]


def branches_first(value: Any, rows: torch.Tensor) -> Any:
    """Undo [`images_first`], for the images `rows` `(N,)`."""
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        return value[rows.to(value.device)].transpose(0, 1).flatten(0, 1)
    chosen = [value[row] for row in rows.tolist()]
    return [group[copy] for copy in range(len(chosen[0])) for group in chosen]
