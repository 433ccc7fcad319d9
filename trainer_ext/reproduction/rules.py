"""
The rules of a reproduction, fixed before any run: pure functions of its [`Evidence`].

A rule passes, fails, or says that what was measured is not enough. A reproduction fails if one rule fails, and passes if all do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from .evidence import Change, Evidence

FLOAT32_RATIO = 1e-5  #: |ratio - 1| that float32 may have in a batch of another shape
REPLAY_SHARE = 0.1  #: of the clip range, which a replay before training may be off
MIN_PAIRS = 8  #: images without which no interval is trusted
MARGIN = 0.25  #: a change that matters, in standard deviations of the rewards before training
HALF_RELOAD = 0.25  #: in half precision, how far pictures may be off, as a share of what training changed


class Outcome(Enum):
    """What can be said of a rule, or of a whole reproduction."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Finding:
    """
    The outcome of one rule.

    Parameters:
        rule (`str`):
            Name of the rule.
        outcome ([`Outcome`]):
            The outcome.
        value, threshold (`float`, *optional*):
            The number that was compared, and with what; `None` where nothing was measured.
        said (`str`):
            Both in words.
    """

    rule: str
    outcome: Outcome
    value: float | None
    threshold: float | None
    said: str

    def __str__(self) -> str:
        return f"{self.outcome.value:<12} {self.rule}: {self.said}"


@dataclass(frozen=True)
class Rule:
    """
    A rule.

    Parameters:
        asks (`str`):
            What it asks, in words.
        passes, fails (`str`):
            When it passes, and when it fails; otherwise it is inconclusive.
        judge (`Callable[[Evidence], Finding]`):
            The rule itself.
    """

    asks: str
    passes: str
    fails: str
    judge: Callable[[Evidence], Finding]


def judge(evidence: Evidence) -> list[Finding]:
    """Return the finding of each rule."""
    return [rule.judge(evidence) for rule in RULES.values()]


def outcome_of(findings: Sequence[Finding]) -> Outcome:
    """Return the outcome of a reproduction."""
    outcomes = {finding.outcome for finding in findings}
    return next(kind for kind in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS) if kind in outcomes)


def _finished(evidence: Evidence) -> Finding:
    made, planned = evidence.updates, evidence.planned_updates
    outcome = Outcome.PASS if made >= planned else Outcome.INCONCLUSIVE
    return Finding("finished", outcome, made, planned, f"{made} of {planned} updates were made")


def _ratio(evidence: Evidence) -> Finding:
    half = evidence.precision != "float32"
    allowed = evidence.clip_range if half else FLOAT32_RATIO
    why = f"the clip range, in {evidence.precision}" if half else "in float32"
    return _at_most("ratio", "|ratio - 1| at the first update", evidence.ratio_error, allowed, why)


def _replay(evidence: Evidence) -> Finding:
    allowed = REPLAY_SHARE * evidence.clip_range
    what = "|ratio - 1| of a step replayed as it was sampled"
    return _at_most("replay", what, evidence.replay_error, allowed, "a tenth of the clip range")


def _at_most(rule: str, what: str, value: float | None, allowed: float, why: str) -> Finding:
    if value is None:
        return _not_measured(rule, what, allowed)
    outcome = Outcome.PASS if value <= allowed else Outcome.FAIL  # not a number is not at most anything
    return Finding(rule, outcome, value, allowed, f"{what} is {value:.2g} (at most {allowed:.2g}, {why})")


def _not_measured(rule: str, what: str, threshold: float) -> Finding:
    return Finding(rule, Outcome.INCONCLUSIVE, None, threshold, f"{what} was not measured")


def _fixed(evidence: Evidence) -> Finding:
    return _rises("fixed samples", "the reward of the same prompts and seeds", evidence.fixed)


def _unseen(evidence: Evidence) -> Finding:
    return _rises("unseen prompts", "the reward of prompts that were not trained on", evidence.unseen)


def _rises(rule: str, what: str, change: Change | None) -> Finding:
    if change is None:
        return _not_measured(rule, what, 0.0)
    if change.n < MIN_PAIRS or change.low is None or change.high is None:
        said = f"{what} was measured on n = {change.n} (at least {MIN_PAIRS} images are needed)"
        return Finding(rule, Outcome.INCONCLUSIVE, None, 0.0, said)
    matters = MARGIN * change.spread
    if change.low > 0:
        outcome, said = Outcome.PASS, "above 0"
    elif change.high <= 0 or change.high < matters:
        outcome, said = (
            Outcome.FAIL,
            f"below {max(matters, 0):.3g}, a quarter of the standard deviation before training",
        )
    else:
        outcome, said = Outcome.INCONCLUSIVE, f"contains 0 and reaches {matters:.3g}: evaluate more images"
    interval = f"95 % interval {change.low:+.3g} to {change.high:+.3g}, n = {change.n}"
    rise = f"{change.before:.4g} -> {change.after:.4g}"
    return Finding(rule, outcome, change.low, 0.0, f"{what}: {rise}, {interval} ({said})")


def _reload(evidence: Evidence) -> Finding:
    found, half = evidence.reload, evidence.precision != "float32"
    allowed = HALF_RELOAD if half else 0.0
    if found is None or not found.n:
        return _not_measured("reload", "the saved adapter in a stock pipeline", allowed)
    same = f"{found.n - found.differing} of {found.n} pictures are the run's, bit for bit"
    if not half:
        outcome = Outcome.FAIL if found.differing else Outcome.PASS
        return Finding("reload", outcome, found.differing, 0.0, f"in a stock pipeline, {same} (all must be)")
    share = found.error / found.change if found.change else float(bool(found.error))
    outcome = Outcome.PASS if share <= allowed else Outcome.FAIL
    said = (
        f"in a stock pipeline, {same}; they differ by {share:.2g} of what training changed (at most {allowed:.2g} in "
        f"{evidence.precision}, to which diffusers rounds the adapter)"
    )
    return Finding("reload", outcome, share, allowed, said)


_INTERVAL = (
    "the 95 % interval of the mean difference lies above 0",
    f"the interval ends below {MARGIN:g} standard deviations of the rewards before training",
)

#: The rules by name, in the order in which they are shown.
RULES = {
    "finished": Rule("Was the run made to its end?", "all planned updates were made", "never", _finished),
    "ratio": Rule(
        "Is the importance ratio 1 at the first update?",
        f"no denoising step is off by more than {FLOAT32_RATIO:g} (float32), or than the clip range (half precision)",
        "a step is",
        _ratio,
    ),
    "replay": Rule(
        "Is a step that is replayed as it was sampled the same?",
        f"|ratio - 1| is at most {REPLAY_SHARE:g} of the clip range",
        "it is more",
        _replay,
    ),
    "fixed samples": Rule("Does the reward of the same prompts and seeds rise?", *_INTERVAL, _fixed),
    "reload": Rule(
        "Does the saved adapter give the same pictures in stock diffusers?",
        f"all pictures are the same bit for bit (float32), or off by at most {HALF_RELOAD:g} of what training changed (half "
        "precision, to which diffusers rounds the adapter)",
        "they are not",
        _reload,
    ),
    "unseen prompts": Rule("Do prompts that were not trained on rise too?", *_INTERVAL, _unseen),
}
