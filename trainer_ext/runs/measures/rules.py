"""The rules by which a run is judged: a pure function of the records of its evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..folder import Evaluation
from ..verdict import Verdict, VerdictKind
from .evidence import Evidence
from .formulas import drifted

MARGIN = 0.25  #: change of the held-out rewards, in standard deviations of the base's images, that matters
DETECTED = 0.1  #: rise of a detector's mean that matters
COLLAPSED = 0.5  #: share of collapsed prompts that matters


def verdict_of(
    evaluations: Sequence[Evaluation],
    held_out: Sequence[str],
    kept: Mapping[int, str],
    lacking: tuple[str, str] | None = None,
) -> Verdict:
    """
    Judge a run.

    Args:
        evaluations (`Sequence[Evaluation]`):
            The evaluations of the same prompts and seeds, the earliest first.
        held_out (`Sequence[str]`):
            Columns of the rewards that were never trained on.
        kept (`Mapping[int, str]`):
            Names of the weights that are still there, such as `"checkpoint-12"`, by their updates.
        lacking (`tuple[str, str]`, *optional*):
            Why the evaluations cannot be compared, and what to do.
    """
    missing = lacking or _missing(evaluations, held_out)
    if missing is not None:
        return _not_judged(*missing)
    evidence = Evidence.of(evaluations, held_out)
    for rule in RULES:
        verdict = rule(evidence, kept)
        if verdict is not None:
            return verdict
    return _inconclusive(evidence)


def _missing(evaluations: Sequence[Evaluation], held_out: Sequence[str]) -> tuple[str, str] | None:
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
    if not Evidence.can_be_of(evaluations, held_out):
        return (
            "the evaluated images have too few rewards, or no held-out reward tells them apart",
            "Evaluate more prompts (--eval_prompts), or other rewards (--eval_reward_funcs).",
        )
    return None


def _not_judged(reason: str, advice: str) -> Verdict:
    return Verdict(
        VerdictKind.NOT_JUDGED, f"Not judged: {reason}. {advice}", f"A verdict needs evidence: {reason}.", {}
    )


# Rules, in the order in which they are tried. Each returns a verdict or None.


def _not_learning(evidence: Evidence, kept: Mapping[int, str]) -> Verdict | None:
    trained = evidence.trained
    if trained.low > 0:
        return None
    fell = trained.high < 0
    return Verdict(
        VerdictKind.NOT_LEARNING,
        f"Not learning: the trained reward {'fell' if fell else 'did not rise'}: {trained}.",
        "The 95 % interval of the trained reward's change is not above 0.",
        evidence.numbers,
    )


def _gold_fell(evidence: Evidence, kept: Mapping[int, str]) -> Verdict | None:
    """Over-optimised if the held-out rewards are below those before training, or below their own peak."""
    for change, rule in (
        (evidence.gold, "The held-out rewards fell below those before training"),
        (evidence.since_peak, "The held-out rewards fell from their highest values"),
    ):
        if change.high < 0 and change.difference <= -MARGIN:
            said = f"the held-out rewards ({evidence.held_out}) changed by {change} since update {change.since}"
            lowest = max(evidence.golds[evidence.peak] - MARGIN, evidence.golds[-1])
            since = evidence.first_update([value <= lowest for value in evidence.golds])
            return _over_optimised(evidence, kept, since, said, f"{rule}.")
    return None


def _detected(evidence: Evidence, kept: Mapping[int, str]) -> Verdict | None:
    for name, figure in evidence.detections.items():
        if figure.low > 0 and figure.difference >= DETECTED:
            since = evidence.first_update([rise >= DETECTED for rise in evidence.rises(name)])
            said = f"the detector {name} is surer ({figure})"
            rule = f"The mean of a detector rose by {DETECTED} or more."
            return _over_optimised(evidence, kept, since, said, rule)
    return None


def _prompts_collapsed(evidence: Evidence, kept: Mapping[int, str]) -> Verdict | None:
    share = evidence.collapsed[-1]
    if share is None or share < COLLAPSED:
        return None
    since = evidence.first_update([(value or 0.0) >= COLLAPSED for value in evidence.collapsed])
    said = f"{share:.0%} of the prompts have less than half of the diversity that they had"
    return _over_optimised(evidence, kept, since, said, f"At least {COLLAPSED:.0%} of the prompts collapsed.")


def _healthy(evidence: Evidence, kept: Mapping[int, str]) -> Verdict | None:
    gold = evidence.gold
    if gold.low < -MARGIN:
        return None
    wanted, chosen = evidence.choice(kept)
    rose = "rose too" if gold.low > 0 else "held"
    return Verdict(
        VerdictKind.HEALTHY,
        f"Rising and healthy: the trained reward rose ({evidence.trained}), and the held-out rewards ({evidence.held_out}) "
        f"{rose}, by {gold}. {_use(kept, wanted, chosen)}{_drift(evidence)}",
        f"The trained reward rose, and the 95 % interval of the held-out rewards' change is above -{MARGIN} standard deviations.",
        evidence.numbers,
        chosen=chosen,
    )


RULES: tuple[Callable[[Evidence, Mapping[int, str]], Verdict | None], ...] = (
    _not_learning,
    _gold_fell,
    _detected,
    _prompts_collapsed,
    _healthy,
)


def _over_optimised(evidence: Evidence, kept: Mapping[int, str], since: int, said: str, rule: str) -> Verdict:
    wanted, chosen = evidence.choice(kept, before=since)
    return Verdict(
        VerdictKind.OVER_OPTIMISED,
        f"Over-optimised since update {since}: {said}, while the trained reward rose by {evidence.trained.difference:+.4g}. "
        f"{_use(kept, wanted, chosen)}{_drift(evidence)}",
        rule,
        evidence.numbers,
        since_update=since,
        chosen=chosen,
    )


def _inconclusive(evidence: Evidence) -> Verdict:
    gold = evidence.gold
    return Verdict(
        VerdictKind.NOT_JUDGED,
        f"Not judged: the change of the held-out rewards ({evidence.held_out}) is uncertain: {gold}. Evaluate more prompts "
        "(--eval_prompts) or images of each (--eval_images_per_prompt).",
        f"The 95 % interval of the held-out rewards' change contains both 0 and -{MARGIN} standard deviations.",
        evidence.numbers,
    )


def _use(kept: Mapping[int, str], wanted: int, chosen: int | None) -> str:
    lost = f"the best evaluation is that after {wanted} updates, whose checkpoint is not kept (save_strategy, save_total_limit)."
    if chosen is None:
        return lost.capitalize()
    if chosen == 0:
        return "No checkpoint is better than the model before training."
    return f"Use {kept[chosen]}{'.' if chosen == wanted else f': {lost}'}"


def _drift(evidence: Evidence) -> str:
    names = drifted(evidence.records)
    return (
        f" The pictures have drifted, in {', '.join(name.removeprefix('pixels/') for name in names)}: look at them."
        if names
        else ""
    )
