"""The rules by which a run is judged: a pure function of the records of its evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..drawings import Evaluation
from .evidence import Evidence
from .formulas import drifted
from .missing import missing
from .verdict import Verdict, VerdictKind

MARGIN = 0.25  #: change of the held-out rewards, in standard deviations of the base's images, that matters
DETECTED = 0.2  #: rise of a detector's mean that matters: a fifth of the images
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
    lack = lacking or missing(evaluations, held_out)
    if lack is not None:
        return _not_judged(*lack)
    evidence = Evidence.of(evaluations, held_out)
    for rule in RULES:
        verdict = rule(evidence, kept)
        if verdict is not None:
            return verdict
    return _inconclusive(evidence)


def _not_judged(reason: str, advice: str) -> Verdict:
    return Verdict(
        VerdictKind.NOT_JUDGED, f"Not judged: {reason}. {advice}", f"A verdict needs evidence: {reason}.", {}
    )


@dataclass(frozen=True)
class Damage:
    """
    What a run lost that was not rewarded.

    Parameters:
        since (`int`):
            Updates of the evaluation from which on it was lost.
        said (`str`):
            What was lost, in words.
        rule (`str`):
            The rule that found it.
    """

    since: int
    said: str
    rule: str


def _falls(evidence: Evidence, margin: float) -> Iterator[Damage]:
    """Find the held-out rewards, together and each, that are surely below those before training, or below their own peak."""
    for part in evidence.parts:
        for change, where in (
            (part.gold, "below those before training"),
            (part.since_peak, "from their highest values"),
        ):
            if change.high < 0 and change.difference <= -margin:
                lowest = max(part.golds[part.peak] - MARGIN, part.golds[-1])
                since = evidence.first_update([value <= lowest for value in part.golds])
                said = f"{part.title} fell (change since update {change.since}: {change})"
                yield Damage(since, said, f"The held-out rewards ({part.held_out}) fell {where}.")


def _detections(evidence: Evidence) -> Iterator[Damage]:
    for name, figure in evidence.detections.items():
        if figure.low > 0 and figure.difference >= DETECTED:
            since = evidence.first_update([rise >= DETECTED for rise in evidence.rises(name)])
            said = f"the detector {name} is surer ({figure})"
            yield Damage(since, said, f"The mean of a detector rose by {DETECTED} or more.")


def _collapses(evidence: Evidence) -> Iterator[Damage]:
    share = evidence.collapsed[-1]
    if share is not None and share >= COLLAPSED:
        since = evidence.first_update([(value or 0.0) >= COLLAPSED for value in evidence.collapsed])
        said = f"{share:.0%} of the prompts have less than half of the diversity that they had"
        yield Damage(since, said, f"At least {COLLAPSED:.0%} of the prompts collapsed.")


def _damages(evidence: Evidence, margin: float) -> list[Damage]:
    """Return the first damage of each kind; held-out rewards are damaged if they surely fell by `margin`."""
    kinds = (_falls(evidence, margin), _detections(evidence), _collapses(evidence))
    return [damage for kind in kinds if (damage := next(kind, None))]


# Rules, in the order in which they are tried. Each returns a verdict or None.


def _not_learning(evidence: Evidence, kept: Mapping[int, str]) -> Verdict | None:
    trained = evidence.trained
    if trained.low > 0:
        return None
    if trained.high < 0:
        said = "the trained reward fell"
    elif trained.high < MARGIN * evidence.spread or trained.high == 0:
        said = "the trained reward did not rise"
    else:
        said = "a rise of the trained reward is not shown"
    meanwhile = "".join(f" Meanwhile, {damage.said}." for damage in _damages(evidence, margin=0.0))
    return Verdict(
        VerdictKind.NOT_LEARNING,
        f"Not learning: {said}: {trained}.{meanwhile}",
        "The 95 % interval of the trained reward's change is not above 0.",
        evidence.numbers,
    )


def _over_optimised(evidence: Evidence, kept: Mapping[int, str]) -> Verdict | None:
    damage = next(iter(_damages(evidence, MARGIN)), None)
    if damage is None:
        return None
    wanted, chosen = evidence.choice(kept, before=damage.since)
    return Verdict(
        VerdictKind.OVER_OPTIMISED,
        f"Over-optimised since update {damage.since}: {damage.said}, while the trained reward rose by "
        f"{evidence.trained.difference:+.4g}. {_use(kept, wanted, chosen)}{_drift(evidence)}",
        damage.rule,
        evidence.numbers,
        since_update=damage.since,
        chosen=chosen,
    )


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


def _inconclusive(evidence: Evidence) -> Verdict:
    gold, title = evidence.gold, evidence.title
    if gold.high < 0:
        said = f"{title} fell, but whether by a quarter of a standard deviation is uncertain"
        contained = f"is below 0 and contains -{MARGIN}"
    else:
        said = f"the change of {title} is uncertain"
        contained = f"contains both 0 and -{MARGIN}"
    return Verdict(
        VerdictKind.NOT_JUDGED,
        f"Not judged: {said}: {gold}. Evaluate more prompts (--eval_prompts) or images of each (--eval_images_per_prompt).",
        f"The 95 % interval of the held-out rewards' change {contained} standard deviations.",
        evidence.numbers,
    )


RULES: tuple[Callable[[Evidence, Mapping[int, str]], Verdict | None], ...] = (_not_learning, _over_optimised, _healthy)


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
