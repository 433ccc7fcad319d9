"""What a DDPO checkpoint holds beside what every `Trainer` saves, and who owns an output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .denoiser import LORA_FILE
from .errors import OutputDirError
from .policy import Trajectory, TransitionTable
from .policy.trajectory import CallRecord
from .rewards import Scores
from .rollout import Rollout


@dataclass(frozen=True)
class DDPOState:
    """
    Parameters:
        tracker (`Mapping[str, Sequence[float]]`):
            Remembered rewards by prompt.
        rollout ([`Rollout`], *optional*):
            The rollout in training, if updates on it are still to come.
    """

    tracker: Mapping[str, Sequence[float]]
    rollout: Rollout | None

    def save(self, folder: Path, process: int) -> None:
        """Write the share of `process` into a checkpoint."""
        rollout = None if self.rollout is None else _rollout_to_plain(self.rollout)
        torch.save({"tracker": dict(self.tracker), "rollout": rollout}, folder / _file_name(process))

    @classmethod
    def load(cls, folder: Path, process: int) -> DDPOState:
        """Read the share of `process` from a checkpoint; only tensors and plain values, never code."""
        plain = torch.load(folder / _file_name(process), weights_only=True)
        rollout = None if plain["rollout"] is None else _rollout_from_plain(plain["rollout"])
        return cls(plain["tracker"], rollout)


def _file_name(process: int) -> str:
    return f"ddpo_state_{process}.pt"


def _rollout_to_plain(rollout: Rollout) -> dict[str, object]:
    trajectory, scores = rollout.trajectory, rollout.scores
    return {
        "index": rollout.index,
        "advantages": rollout.advantages,
        "table": vars(trajectory.table),
        "latents": trajectory.latents,
        "model_outputs": trajectory.model_outputs,
        "calls": [vars(call) for call in trajectory.calls],
        "reward_names": list(scores.names),
        "reward_values": torch.from_numpy(scores.values),
        "reward_total": torch.from_numpy(scores.total),
    }


def _rollout_from_plain(plain: dict) -> Rollout:  # type: ignore[type-arg]
    trajectory = Trajectory(
        TransitionTable(**plain["table"]),
        plain["latents"],
        plain["model_outputs"],
        tuple(CallRecord(**call) for call in plain["calls"]),
    )
    scores = Scores(tuple(plain["reward_names"]), plain["reward_values"].numpy(), plain["reward_total"].numpy())
    return Rollout(plain["index"], trajectory, scores, plain["advantages"])


def check_output_dir(output_dir: Path, resuming: bool) -> None:
    """
    Refuse to write a new run over another.

    Raises:
        [`OutputDirError`]: the folder holds a run, and it is not being resumed.
    """
    if resuming or not output_dir.is_dir():
        return
    found = [
        path.name for pattern in ("checkpoint-*", "rollouts", LORA_FILE) for path in sorted(output_dir.glob(pattern))
    ]
    if found:
        raise OutputDirError(
            f"{output_dir} already holds a run ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''}). Continue it with "
            "resume_from_checkpoint=True (--resume_from_checkpoint true), or give another output_dir; nothing was changed."
        )
