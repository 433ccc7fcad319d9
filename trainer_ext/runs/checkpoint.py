"""The state that DDPO adds to `Trainer`'s checkpoints, and the check that an output folder holds no other run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, OutputDirError
from ..file_names import LORA_FILE
from ..learning.fused.memory import ImageGradients
from ..learning.rollout import Rollout
from ..policy.recording.conditioning import CallRecord, Conditioning
from ..policy.recording.trajectory import FinalLatents, Trajectory
from ..policy.transitions.gaussian import TransitionTable
from .place import check_writable


@dataclass(frozen=True)
class DDPOState:
    """
    One process's share of a checkpoint.

    Parameters:
        setup (`Mapping[str, Any]`):
            The run that it belongs to: its [`RunSetup`] as JSON holds it.
        algorithm (`str`):
            Name of the run's algorithm.
        weighting (`Sequence[Mapping[str, Sequence[float]]]`):
            Remembered rewards by prompt, one mapping for each baseline.
        gate (`Mapping[str, Sequence[float]]`):
            What the gate of the distance from the reference remembers.
        rollout ([`Rollout`], *optional*):
            The rollout in training, if updates on it are still to come.
        metrics (`Mapping[str, Sequence[float]]`):
            Measurements since the last log.
    """

    setup: Mapping[str, Any]
    algorithm: str
    weighting: Sequence[Mapping[str, Sequence[float]]]
    gate: Mapping[str, Sequence[float]]
    rollout: Rollout[Any] | None
    metrics: Mapping[str, Sequence[float]]

    def save(self, folder: Path, process: int, num_processes: int) -> None:
        """Write the share of `process` into a checkpoint."""
        plain = {
            "num_processes": num_processes,
            "setup": dict(self.setup),
            "algorithm": self.algorithm,
            "weighting": list(self.weighting),
            "gate": dict(self.gate),
            "rollout": None if self.rollout is None else _rollout_to_plain(self.rollout),
            "metrics": dict(self.metrics),
        }
        torch.save(plain, folder / _file_name(process))

    @classmethod
    def load(cls, folder: Path, process: int, num_processes: int) -> DDPOState:
        """
        Read the share of `process` from a checkpoint; only tensors and plain values, never code.

        Raises:
            [`CheckpointError`]: the checkpoint belongs to a run with another number of processes, or does not say to which.
        """
        plain = torch.load(folder / _file_name(min(process, _num_shares(folder) - 1)), weights_only=True)
        if plain["num_processes"] != num_processes:
            raise CheckpointError(
                f"{folder} was written by {plain['num_processes']} process(es), and this run has {num_processes}. Resume "
                "with the same number: a rollout belongs to the processes that made it."
            )
        if "setup" not in plain:
            raise CheckpointError(
                f"{folder} does not say which run it belongs to: an earlier version of ddpo-plugins wrote it. Resume with that "
                "version, or begin a new run in another output_dir."
            )
        rollout = None if plain["rollout"] is None else _rollout_from_plain(plain["rollout"])
        memory = (plain["weighting"], plain.get("gate", {}))  # none in checkpoints of version 0.1.0
        return cls(plain["setup"], plain["algorithm"], *memory, rollout, plain["metrics"])


def _file_name(process: int) -> str:
    return f"ddpo_state_{process}.pt"


def _num_shares(folder: Path) -> int:
    return len(list(folder.glob("ddpo_state_*.pt")))


def _rollout_to_plain(rollout: Rollout[Any]) -> dict[str, Any]:
    data = rollout.data
    common = {"index": rollout.index, "weights": rollout.weights, "distance_weights": rollout.distance_weights}
    if isinstance(data, ImageGradients):
        return {**common, "gradients": dict(data.by_weight)}
    common |= {"latents": data.latents, "conditioning": _conditioning_to_plain(data.conditioning)}
    if isinstance(data, FinalLatents):
        return common
    return {**common, "table": vars(data.table), "model_outputs": data.model_outputs}


def _rollout_from_plain(plain: Mapping[str, Any]) -> Rollout[Any]:
    weights = (plain["weights"], plain.get("distance_weights", torch.ones(())))
    if "gradients" in plain:
        return Rollout(plain["index"], ImageGradients(plain["gradients"]), *weights)
    conditioning = _conditioning_from_plain(plain["conditioning"])
    data: FinalLatents | Trajectory = FinalLatents(plain["latents"], conditioning)
    if "table" in plain:
        data = Trajectory(TransitionTable(**plain["table"]), plain["latents"], plain["model_outputs"], conditioning)
    return Rollout(plain["index"], data, *weights)


def _conditioning_to_plain(conditioning: Conditioning) -> dict[str, Any]:
    return {**vars(conditioning), "groups": [[vars(call) for call in calls] for calls in conditioning.groups]}


def _conditioning_from_plain(plain: Mapping[str, Any]) -> Conditioning:
    groups = tuple(tuple(CallRecord(**call) for call in calls) for calls in plain["groups"])
    return Conditioning(groups, plain["group_of"], plain["row_of"])


def check_state(checkpoint: Path, state: DDPOState, algorithm: str, num_images: int) -> None:
    """
    Check that a run with these options could have saved this state.

    Raises:
        [`CheckpointError`]: the algorithm differs, or the rollout in training has a different number of images.
    """
    if state.algorithm != algorithm:
        raise CheckpointError(
            f"{checkpoint} belongs to a run with algorithm={state.algorithm!r}, and this run has {algorithm!r}; "
            "resume with the same algorithm."
        )
    if state.rollout is not None and len(state.rollout) != num_images:
        raise CheckpointError(
            f"{checkpoint} was written during training on a rollout of {len(state.rollout)} images, and this run's rollouts have "
            f"{num_images} in each process; resume with the original num_images_per_rollout."
        )


def check_output_dir(output_dir: Path, resuming: bool) -> None:
    """
    Check that a run can write its folder, and that a new one would not overwrite another.

    Raises:
        [`OutputDirError`]: the folder cannot be written, or it holds a run that is not being resumed.
    """
    check_writable(output_dir)
    if resuming:
        return
    found = [
        path.name for pattern in ("checkpoint-*", "rollouts", LORA_FILE) for path in sorted(output_dir.glob(pattern))
    ]
    if found:
        raise OutputDirError(
            f"{output_dir} already holds a run ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''}). Continue it with "
            "resume_from_checkpoint=True (--resume_from_checkpoint true), or give another output_dir; nothing was changed."
        )
