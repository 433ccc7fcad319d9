"""The result of a run, computed from its folder alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddpo_plugins.names import DETECTORS

from ..file_names import LORA_FILE, PEFT_FILE, PIPELINE_FILE
from .drawings import Evaluation, SampleSheet
from .folder import RunFolder
from .manifest import latest_branch, updates_of
from .measures.comparable import RecordedEvaluations
from .measures.paired import PairedFigure, bootstrapped_figure, paired_columns, paired_figure
from .measures.rules import verdict_of
from .measures.verdict import Verdict
from .records import Record

__all__ = ["PairedFigure", "RunSummary", "paired_figure"]


@dataclass(frozen=True)
class RunSummary:
    """
    The result of a run. A field is `None` until it is measured.

    Parameters:
        updates (`int`, *optional*):
            Optimizer updates when the fixed samples were last drawn.
        paired ([`PairedFigure`], *optional*):
            The fixed samples' reward before and after training.
        paired_by_default ([`PairedFigure`], *optional*):
            The same with the base's own scheduler at its default steps and guidance; see `sample_defaults` of [`DDPOConfig`].
        first_rollout, last_rollout (`float`, *optional*):
            Mean rewards of these rollouts; without a second one, the last is `None`. Their prompts differ, so their difference
            does not measure what was learned.
        held_out (`Mapping[str, PairedFigure]`):
            The rewards that were never trained on, in the first evaluation and the last, by column of the records, with the
            interval of a paired bootstrap; those of several datasets together.
        detections (`Mapping[str, PairedFigure]`):
            The same of the detectors.
        generalisation (`Mapping[str, Mapping[str, PairedFigure]]`):
            The same of the trained and the held-out rewards for each dataset, if there are several: whether what was learned on
            some prompts holds for others.
        verdict ([`Verdict`], *optional*):
            Whether the reward was over-optimised.
        chosen_checkpoint (`Path`, *optional*):
            The checkpoint to use.
    """

    updates: int | None = None
    paired: PairedFigure | None = None
    paired_by_default: PairedFigure | None = None
    first_rollout: float | None = None
    last_rollout: float | None = None
    held_out: Mapping[str, PairedFigure] = field(default_factory=dict)
    detections: Mapping[str, PairedFigure] = field(default_factory=dict)
    generalisation: Mapping[str, Mapping[str, PairedFigure]] = field(default_factory=dict)
    verdict: Verdict | None = None
    chosen_checkpoint: Path | None = None

    @classmethod
    def of(cls, folder: RunFolder) -> RunSummary:
        """Read a run's folder."""
        sheets = folder.samples()
        defaults = folder.default_samples()
        recorded = recorded_evaluations(folder)
        evaluations, held_out = recorded.joined, recorded.held_out
        weights = _weights(folder, evaluations)
        began = bool(sheets or evaluations or folder.rollouts())
        verdict = verdict_of(evaluations, held_out, _names(folder, weights), recorded.lacking) if began else None
        means = [float(rewards.mean()) for rewards in folder.rewards().values() if len(rewards)]
        return cls(
            updates=sheets[-1].updates if sheets else None,
            paired=_paired_sheets(sheets[0], sheets[-1]) if sheets else None,
            paired_by_default=_paired_records(defaults[0], defaults[-1]) if len(defaults) > 1 else None,
            first_rollout=means[0] if means else None,
            last_rollout=means[-1] if len(means) > 1 else None,
            held_out=_figures(evaluations, held_out.__contains__),
            detections=_figures(evaluations, lambda name: name.startswith(DETECTORS)),
            generalisation=_by_dataset(recorded.by_dataset, {"reward", *held_out}),
            verdict=verdict,
            chosen_checkpoint=None if verdict is None or verdict.chosen is None else weights.get(verdict.chosen),
        )


def recorded_evaluations(folder: RunFolder) -> RecordedEvaluations:
    """Read the evaluations of a run, and the setups that say which of them can be compared."""
    return RecordedEvaluations(folder.evaluations(), folder.setups() if folder.setup_file.is_file() else [])


def _paired_sheets(first: SampleSheet, last: SampleSheet) -> PairedFigure | None:
    """Compare the base model with the trained one, image by image."""
    if first.updates != 0 or last.updates == 0:
        return None
    return _paired_records(first.records, last.records)


def _paired_records(first: Sequence[Record], last: Sequence[Record]) -> PairedFigure | None:
    pairs = paired_columns(first, last, "reward")
    return paired_figure(pairs) if len(pairs) else None


def _figures(evaluations: Sequence[Evaluation], columns: Callable[[str], bool]) -> dict[str, PairedFigure]:
    """Compare the columns of the last evaluation with those of the model before training."""
    if len(evaluations) < 2 or evaluations[0].updates != 0:
        return {}
    first, last = evaluations[0].records, evaluations[-1].records
    pairs = {name: paired_columns(first, last, name) for name in first[0] if columns(name)}
    return {name: bootstrapped_figure(values) for name, values in pairs.items() if len(values)}


def _by_dataset(
    each: Mapping[str, Sequence[Evaluation]], columns: Collection[str]
) -> dict[str, dict[str, PairedFigure]]:
    return {name: _figures(found, columns.__contains__) for name, found in each.items()} if len(each) > 1 else {}


def _weights(folder: RunFolder, evaluations: Sequence[Evaluation]) -> dict[int, Path]:
    """Return the weights that are still there by their updates: the run's complete checkpoints, or without any its weights."""
    found = {updates_of(path): path for path in latest_branch(folder.path)}
    saved = any((folder.path / name).is_file() for name in (LORA_FILE, PEFT_FILE, PIPELINE_FILE))
    return found if found or not saved or not evaluations else {evaluations[-1].updates: folder.path}


def _names(folder: RunFolder, weights: Mapping[int, Path]) -> dict[int, str]:
    return {updates: "the saved weights" if path == folder.path else path.name for updates, path in weights.items()}
