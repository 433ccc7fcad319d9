"""A reference that follows the trained weights in steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from accelerate.utils import gather_object
from transformers import TrainerControl, TrainerState, TrainingArguments

from ...learning.regularisation.resets import ResetRule
from .weights import EarlierWeights

REFERENCE_FILE = "reference.safetensors"  #: of a checkpoint of a run whose reference moves


class MovingReference(EarlierWeights):
    """
    The weights that the distance in the loss is measured from: those before training, until a rule sets them to the trained ones.

    Args:
        module (`torch.nn.Module`):
            The trained module.
        rule ([`ResetRule`]):
            When the reference moves.
        updates_per_rollout (`int`):
            Updates between two rollouts.
    """

    file: ClassVar[str] = REFERENCE_FILE
    owner: ClassVar[str] = "a reference that moves"

    def __init__(self, module: torch.nn.Module, rule: ResetRule, updates_per_rollout: int):
        super().__init__(module)
        self.rule, self.updates_per_rollout = rule, updates_per_rollout
        self.rollouts, self.was_far = 0, False  #: since it moved last
        self._forget()

    def _forget(self) -> None:
        self._noted: list[tuple[torch.Tensor, int]] = []

    def note(self, distances: torch.Tensor) -> None:
        """Note the distances `(N,)` from the reference in a forward pass of the update in progress."""
        if self.rule.distance is not None:
            self._noted.append((distances.detach().sum(), len(distances)))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Forget an update that was cut short."""
        self._forget()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Move after the last update on a rollout, if the rule says so: in all processes, or in none."""
        if self.rule.distance is not None:
            noted = gather_object([(float(total), number) for total, number in self._noted])
            self._forget()
            self.was_far |= self.rule.is_far(sum(total for total, _ in noted) / max(sum(n for _, n in noted), 1))
        if state.global_step % self.updates_per_rollout:
            return
        self.rollouts += 1
        if self.rule.is_due(self.rollouts, self.was_far):
            self.restart()
            self.rollouts, self.was_far = 0, False

    @property
    def memory(self) -> dict[str, str]:
        """How long ago it moved, and whether it is to move after this rollout."""
        return {"rollouts": str(self.rollouts), "was_far": str(int(self.was_far))}

    def remember(self, memory: Mapping[str, str]) -> None:
        """See [`EarlierWeights.remember`]."""
        self.rollouts, self.was_far = int(memory["rollouts"]), bool(int(memory["was_far"]))
