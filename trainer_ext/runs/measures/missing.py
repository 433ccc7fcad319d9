"""What a judgement of a run lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddpo_plugins.names import REWARDS

from ..drawings import Evaluation
from ..records import Record
from .changes import MIN_PAIRS
from .formulas import column, gold_changes, matched
from .paired import paired_columns


def missing(evaluations: Sequence[Evaluation], held_out: Sequence[str]) -> tuple[str, str] | None:
    """Return what a judgement lacks, and what to do; None if it lacks nothing."""
    if not evaluations:
        return (
            "no evaluation ran",
            "Add --eval_strategy epoch, --eval_prompts and --eval_reward_funcs with a reward that is not trained on.",
        )
    if not held_out:
        return "no held-out reward ran", "Add --eval_reward_funcs with a reward that is not trained on."
    if evaluations[0].updates:
        return (
            "there is no evaluation of the model before training",
            "Resume in the folder in which the run began.",
        )
    if len(evaluations) < 2:
        return "no evaluation ran after the training began", "Train on, or set --eval_strategy epoch."
    reason = _shortage(evaluations[0].records, evaluations[-1].records, held_out)
    return None if reason is None else (f"the evaluated images have too few rewards{reason}", ENOUGH)


ENOUGH = (
    "Evaluate more prompts (--eval_prompts) or images of each (--eval_images_per_prompt), or by rewards that judge all of them "
    "(--eval_reward_funcs)."
)


def _shortage(base: Sequence[Record], last: Sequence[Record], held_out: Sequence[str]) -> str | None:
    """Say which rewards too few images have, of at least ten and half of them, in the first evaluation and the last."""
    golds = len(gold_changes(base, base, last, held_out))
    if not golds:
        return ", or no held-out reward tells them apart"
    images = max(len(base), len(last))
    needed = max(MIN_PAIRS, (images + 1) // 2)
    trained = len(paired_columns(base, last, "reward"))
    for found, name in ((trained, "the trained reward"), (golds, "a held-out reward")):
        if found < needed:
            return (
                f": {found} of {images} have {name} before training and in the last evaluation, and {needed} are needed"
            )
    return next((said for name in held_out if (said := _lost(base, last, name))), None)


def _lost(base: Sequence[Record], last: Sequence[Record], name: str) -> str | None:
    """Say of how many images one held-out reward was lost, if those are most of the images that it judges."""
    after, before = (np.isnan(column(records, name)) for records in matched(last, base))
    judged, both = int((~(after & before)).sum()), int((~(after | before)).sum())
    if 2 * both >= judged:
        return None
    title = name.removeprefix(REWARDS)
    return f": of {judged} with the held-out reward {title} only {both} have it both before training and in the last evaluation"
