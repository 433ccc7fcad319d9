"""Which evaluations of a run can be compared: those of the same images by the same judges, also where it was resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..drawings import Evaluation
from .formulas import measured_columns, same_images
from .phases import Setup, change_of_measure, never_trained


@dataclass(frozen=True)
class RecordedEvaluations:
    """
    All evaluations of a run.

    Parameters:
        recorded (`Mapping[str, Sequence[Evaluation]]`):
            The evaluations of each dataset, the earliest first.
        setups (`Sequence[Mapping]`):
            The entries of `run.json`.
    """

    recorded: Mapping[str, Sequence[Evaluation]]
    setups: Sequence[Setup]

    @property
    def held_out(self) -> list[str]:
        """Columns of the rewards that the run evaluates, and never trained on, also before it was resumed."""
        return never_trained(self.setups)

    @cached_property
    def by_dataset(self) -> dict[str, list[Evaluation]]:
        """The evaluations of each dataset that the run evaluates now, of the same images as its last."""
        current = self.setups[-1].get("eval_prompts") if self.setups else None
        return {
            name: [evaluation for evaluation in found if same_images(evaluation.records, found[-1].records)]
            for name, found in self.recorded.items()
            if not current or name in current
        }

    @cached_property
    def joined(self) -> list[Evaluation]:
        """The evaluations of all datasets as if they were one, the earliest first: those after as many updates in each."""
        each = [{evaluation.updates: evaluation for evaluation in found} for found in self.by_dataset.values()]
        moments = sorted(set.intersection(*map(set, each))) if each else []
        return [Evaluation.joined([found[updates] for found in each]) for updates in moments]

    @property
    def lacking(self) -> tuple[str, str] | None:
        """Why the evaluations of a run that was resumed with other options cannot be compared, and what to do."""
        changed = change_of_measure(self.setups)
        if changed is not None and self.joined:
            return (
                f"{changed}, so that evaluations before and after cannot be compared",
                "To judge a reward, begin a new run in another output_dir.",
            )
        if not self.joined or not self.held_out:
            return None
        first = [found[0] for found in self.recorded.values()]
        if self.joined[0].updates and not any(evaluation.updates for evaluation in first):
            return (
                "the evaluated prompts changed, and the model before training was not evaluated on these",
                "Resume with the original --eval_prompts.",
            )
        base, last = (measured_columns(self.joined[index].records) for index in (0, -1))
        if not base.intersection(self.held_out) and last.intersection(self.held_out):
            return (
                "the held-out rewards changed, and the model before training was not judged by these",
                "Resume with the original --eval_reward_funcs.",
            )
        return None
