"""The weights of an algorithm's old policy, beside the trained ones."""

from __future__ import annotations

from typing import ClassVar

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from ...learning.old_policy import OldPolicy
from .weights import EarlierWeights

OLD_FILE = "old_policy.safetensors"  #: of a checkpoint of a run whose algorithm has an old policy


class OldWeights(EarlierWeights):
    """
    Moves the old policy's weights after updates, and lends the module with them.

    Args:
        module (`torch.nn.Module`):
            The module whose trainable parameters have old values beside them.
        policy ([`OldPolicy`]):
            When and how far they move.
        updates_per_rollout (`int`):
            Updates between two rollouts.
    """

    file: ClassVar[str] = OLD_FILE
    owner: ClassVar[str] = "an old policy"

    def __init__(self, module: torch.nn.Module, policy: OldPolicy, updates_per_rollout: int):
        super().__init__(module)
        self.policy, self.updates_per_rollout = policy, updates_per_rollout

    @torch.no_grad()
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Move after an update, if one is due."""
        moves = self.policy.moves_after(state.global_step, self.updates_per_rollout)
        if moves is not None:
            for name, value in self.parameters.items():
                self.values[name] = torch.lerp(value.detach(), self.values[name].to(value), self.policy.decay(moves))
