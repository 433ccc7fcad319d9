"""What a rollout leaves behind: everything that replaying any of its steps needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import PipelineError
from .recorder import CallLayout, DenoiserCall, is_same
from .transitions import TransitionTable


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
    """

    per_image: Mapping[str, Any]
    shared: Mapping[str, Any]
    timesteps: torch.Tensor

    @classmethod
    def first(cls, layout: CallLayout, call: DenoiserCall) -> CallRecord:
        """Record the call of the first step."""
        rest = {k: v for k, v in call.arguments.items() if k not in (layout.latents_name, layout.time_name)}
        per_image = {k: images_first(v, layout.copies) for k, v in rest.items() if k in layout.per_image}
        shared = {k: v for k, v in rest.items() if k not in layout.per_image}
        return cls(per_image, shared, call.arguments[layout.time_name].reshape(-1)[:1].clone())

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
class Finals:
    """
    What is left of B denoising runs where only their ends matter.

    Parameters:
        latents (`torch.Tensor` of shape `(B, ...)`, float32):
            What was decoded.
        calls (`tuple[CallRecord, ...]`):
            One for each denoiser call of a step.
    """

    latents: torch.Tensor
    calls: tuple[CallRecord, ...]

    def __len__(self) -> int:
        return len(self.latents)

    @staticmethod
    def concatenate(parts: Sequence[Finals]) -> Finals:
        """Join the ends of runs, image by image. Raises as [`Trajectory.concatenate`]."""
        return Finals(torch.cat([part.latents for part in parts]), _concatenate([part.calls for part in parts]))


@dataclass(frozen=True)
class Trajectory:
    """
    B denoising runs of T steps.

    Parameters:
        table ([`TransitionTable`]):
            Coefficients of the steps, frozen when the rollout was made.
        latents (`torch.Tensor` of shape `(B, T + 1, ...)`, float32):
            From pure noise to the latents that were decoded.
        model_outputs (`torch.Tensor` of shape `(B, T, ...)`):
            The guided predictions that sampled them.
        calls (`tuple[CallRecord, ...]`):
            One for each denoiser call of a step.
    """

    table: TransitionTable
    latents: torch.Tensor
    model_outputs: torch.Tensor
    calls: tuple[CallRecord, ...]

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
        calls = tuple(
            CallRecord(
                to_device(dict(call.per_image), "cpu"), to_device(dict(call.shared), "cpu"), call.timesteps.cpu()
            )
            for call in self.calls
        )
        return Trajectory(self.table, self.latents.cpu(), self.model_outputs.cpu(), calls)

    def finals(self) -> Finals:
        """Forget the way."""
        return Finals(self.latents[:, -1].clone(), self.calls)  # a view would keep the whole way in memory

    @staticmethod
    def concatenate(parts: Sequence[Trajectory]) -> Trajectory:
        """
        Join trajectories of one policy, image by image.

        Raises:
            [`PipelineError`]: the parts were conditioned differently (prompts padded to different lengths, say).
        """
        return Trajectory(
            parts[0].table,
            torch.cat([part.latents for part in parts]),
            torch.cat([part.model_outputs for part in parts]),
            _concatenate([part.calls for part in parts]),
        )


def _concatenate(parts: Sequence[tuple[CallRecord, ...]]) -> tuple[CallRecord, ...]:
    return tuple(_concatenate_calls(calls) for calls in zip(*parts, strict=True))


def _concatenate_calls(calls: Sequence[CallRecord]) -> CallRecord:
    first = calls[0]
    for call in calls[1:]:
        differing = [name for name in first.shared if not is_same(first.shared[name], call.shared[name])]
        differing += [
            name for name in first.per_image if _row_shape(first.per_image[name]) != _row_shape(call.per_image[name])
        ]
        if differing:
            raise PipelineError(
                f"The denoiser's arguments {', '.join(differing)} differ between batches of one rollout, so its images "
                "cannot be trained together. Set rollout_batch_size to the images of a rollout on each device, or pad "
                "prompts to one length through pipeline_kwargs (padding='max_length')."
            )
    per_image = {name: _join([call.per_image[name] for call in calls]) for name in first.per_image}
    return CallRecord(per_image, first.shared, first.timesteps)


def _row_shape(value: Any) -> Any:
    return value.shape[1:] if isinstance(value, torch.Tensor) else type(value)


def _join(values: Sequence[Any]) -> Any:
    if isinstance(values[0], torch.Tensor):
        return torch.cat(list(values))
    return [row for value in values for row in value]


def images_first(value: Any, copies: int) -> Any:
    """From `copies` blocks of B rows, one after the other, to B groups of `copies` rows."""
    if isinstance(value, torch.Tensor):
        return value.unflatten(0, (copies, -1)).transpose(0, 1)
    num_images = len(value) // copies
    return [[value[copy * num_images + image] for copy in range(copies)] for image in range(num_images)]


def branches_first(value: Any, rows: torch.Tensor) -> Any:
    """Undo [`images_first`], for the images `rows` `(N,)`."""
    if isinstance(value, torch.Tensor):
        return value[rows.to(value.device)].transpose(0, 1).flatten(0, 1)
    chosen = [value[row] for row in rows.tolist()]
    return [group[copy] for copy in range(len(chosen[0])) for group in chosen]


def to_device(value: Any, device: torch.device | str) -> Any:
    """Move the tensors inside `value` to `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)(to_device(inner, device) for inner in value)
    if isinstance(value, dict):
        return {name: to_device(inner, device) for name, inner in value.items()}
    return value
