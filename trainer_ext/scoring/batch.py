"""A batch of images with their dataset rows, of which every reward and detector gets copies of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerState

from ddpo_plugins.contract import RewardLog
from ddpo_plugins.errors import describe

from ..errors import ConfigError
from ..images import to_pil
from .functions import ImageFunction


@dataclass(frozen=True)
class Batch:
    """
    What rewards and detectors are called with. None of them can change what the others are given.

    Parameters:
        images (`torch.Tensor` of shape `(B, H, W, 3)`, uint8):
            RGB.
        rows (`Sequence[Mapping[str, Any]]` of length B):
            The dataset row of each image.
        trainer_state (`TrainerState`, *optional*):
            The trainer's state. Functions get a copy that cannot be changed.
    """

    images: torch.Tensor
    rows: Sequence[Mapping[str, Any]]
    trainer_state: Any = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def prompts(self) -> list[str]:
        """The prompt of each image, length B, in a new list."""
        return [row["prompt"] for row in self.rows]

    def part(self, positions: Sequence[int]) -> Batch:
        """Return some of the images, as a batch of their own."""
        return Batch(self.images[list(positions)], [self.rows[i] for i in positions], self.trainer_state)

    def arguments(self, function: ImageFunction, log: RewardLog) -> dict[str, Any]:
        """Return the arguments of one call, as new objects each time."""
        columns = {name: [_copied(name, row[name]) for row in self.rows] for name in self.rows[0] if name != "prompt"}
        return {
            **columns,
            "images": self._images(function.images),
            "prompts": self.prompts,
            "trainer_state": _read_only(self.trainer_state),
            **log.arguments(str(function)),
        }

    def _images(self, form: str) -> Any:
        """Return the images as RGB PIL images, or as float32 `(B, 3, H, W)` in [0, 1]."""
        return to_pil(self.images) if form == "pil" else self.images.permute(0, 3, 1, 2).float().div_(255)


def _read_only(state: Any) -> Any:
    return ReadOnlyState.of(state) if isinstance(state, TrainerState) else state


def _copied(column: str, value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception as error:
        raise ConfigError(
            f"The column {column!r} of the dataset holds a {type(value).__name__} that cannot be copied for each reward: "
            f"{describe(error)}. Leave the column out, or build such objects in the reward."
        ) from error


class ReadOnlyState(TrainerState):
    """A trainer's state at one moment, which refuses to be changed."""

    @classmethod
    def of(cls, state: TrainerState) -> ReadOnlyState:
        """Copy a state. Entries of the log, of which there may be many, are copied one level deep."""
        copied = object.__new__(cls)
        others = {name: value for name, value in vars(state).items() if name != "log_history"}
        vars(copied).update(copy.deepcopy(others), log_history=_copied_logs(state.log_history))
        return copied

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"trainer_state is a copy to read from: {name!r} cannot be set. Keep your own state elsewhere."
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"trainer_state is a copy to read from: {name!r} cannot be deleted.")


def _copied_logs(logs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [dict(log) for log in logs]
