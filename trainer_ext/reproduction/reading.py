"""The evidence of a reproduction, read from its run's folder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..options import DDPOOptions, clip_range_of
from ..runs.drawings import Evaluation
from ..runs.folder import RunFolder
from ..runs.measures.paired import PairedFigure, bootstrapped_figure, paired_columns, paired_figure
from ..runs.records import Record, read_records
from ..runs.summary import recorded_evaluations
from ..types import FloatArray
from .evidence import Change, Evidence
from .files import KitFiles

TRAINED = "reward"  #: column of the weighted sum of the rewards that are trained on
Setup = Mapping[str, Any]


def evidence_of(folder: RunFolder) -> Evidence:
    """Return what was measured of a reproduction, so far."""
    kit, setup = KitFiles(folder.path), folder.setups()[-1]
    plan, sessions = kit.plan(), kit.sessions()
    return Evidence(
        precision=precision_of(setup),
        clip_range=clip_range_of(
            setup["options"].get("algorithm", DDPOOptions.algorithm), setup["options"].get("clip_range")
        ),
        updates=sessions[-1].updates if sessions else 0,
        planned_updates=plan.updates,
        ratio_error=_first_ratio_error(folder),
        replay_error=plan.replay_error,
        fixed=_of_fixed_samples(folder),
        unseen=_of_unseen(folder, setup),
        reload=kit.reload(),
    )


def precision_of(setup: Setup) -> str:
    """Return the precision in which a run computed."""
    options = setup["options"]
    return "bfloat16" if options.get("bf16") else "float16" if options.get("fp16") else "float32"


def changes_by_dataset(folder: RunFolder) -> dict[str, Change]:
    """Return the trained reward's change on each dataset of prompts that the run evaluated."""
    pairs = {name: _pairs(found) for name, found in recorded_evaluations(folder).by_dataset.items()}
    return {name: change(bootstrapped_figure(values), values) for name, values in pairs.items() if len(values)}


def change(figure: PairedFigure, pairs: FloatArray) -> Change:
    """Return a change, given the values before and after `(n, 2)`."""
    low, high = (None if math.isnan(edge) else edge for edge in (figure.low, figure.high))
    return Change(figure.before, figure.after, low, high, figure.n, float(pairs[:, 0].std()))


def _first_ratio_error(folder: RunFolder) -> float | None:
    """Return the largest |ratio - 1| of a denoising step at the first update, if that alone was logged."""
    file = folder.step_file(1)
    table = read_records(file, ["ratio"]) if file.is_file() else None
    return None if table is None else float(np.abs(table["ratio"].to_numpy() - 1).max())


def _of_fixed_samples(folder: RunFolder) -> Change | None:
    sheets = folder.samples()
    if not sheets or sheets[0].updates != 0 or sheets[-1].updates == 0:
        return None
    return _change(paired_columns(sheets[0].records, sheets[-1].records, TRAINED))


def _of_unseen(folder: RunFolder, setup: Setup) -> Change | None:
    """Return the change on all prompts together that were not trained on."""
    unseen = set(unseen_datasets(setup))
    pairs = [_pairs(found) for name, found in recorded_evaluations(folder).by_dataset.items() if name in unseen]
    values = np.concatenate(pairs) if pairs else np.empty((0, 2))
    return change(bootstrapped_figure(values), values) if len(values) else None


def unseen_datasets(setup: Setup) -> Iterator[str]:
    """Yield the names of the evaluated datasets whose prompts are not those of training."""
    for name, described in setup["eval_prompts"].items():
        if described["fingerprint"] != setup["prompts"]["fingerprint"]:
            yield name


def _pairs(evaluations: Sequence[Evaluation]) -> FloatArray:
    if len(evaluations) < 2 or evaluations[0].updates != 0:
        return np.empty((0, 2))
    first: Sequence[Record] = evaluations[0].records
    return paired_columns(first, evaluations[-1].records, TRAINED)


def _change(pairs: FloatArray) -> Change | None:
    return change(paired_figure(pairs), pairs) if len(pairs) else None
