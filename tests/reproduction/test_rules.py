"""The rules of a reproduction, each against numbers for which the outcome is known."""

from dataclasses import replace

import pytest

from trainer_ext.reproduction.evidence import Change, Evidence, Reload
from trainer_ext.reproduction.rules import RULES, Outcome, judge, outcome_of

ROSE = Change(before=1.0, after=2.0, low=0.5, high=1.5, n=16, spread=1.0)
SAME = Reload(n=16, differing=0, error=0.0, change=8.0)
GOOD = Evidence("float32", 0.1, 8, 8, ratio_error=0.0, replay_error=0.0, fixed=ROSE, unseen=ROSE, reload=SAME)
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def change(**options):
    return {name: replace(ROSE, **options) for name in ("fixed", "unseen")}


CHANGED = ("fixed samples", "unseen prompts")
HALF = {"precision": "bfloat16", "clip_range": 1e-4}
CASES = [
    ({}, (), PASS),
    ({"updates": 7}, ("finished",), INCONCLUSIVE),
    ({"ratio_error": 1e-5}, ("ratio",), PASS),
    ({"ratio_error": 2e-5}, ("ratio",), FAIL),
    ({"ratio_error": float("nan")}, ("ratio",), FAIL),
    ({"ratio_error": None}, ("ratio",), INCONCLUSIVE),
    ({**HALF, "ratio_error": 9e-5}, ("ratio",), PASS),
    ({**HALF, "ratio_error": 2e-4}, ("ratio",), FAIL),
    ({"replay_error": 0.01}, ("replay",), PASS),
    ({"replay_error": 0.011}, ("replay",), FAIL),
    (change(low=1e-9), CHANGED, PASS),
    (change(low=0.0, high=0.0), CHANGED, FAIL),  # learning rate 0: the same images
    (change(low=-1.0, high=-0.5), CHANGED, FAIL),
    (change(low=-0.1, high=0.2), CHANGED, FAIL),  # at most a fifth of a standard deviation
    (change(low=-0.1, high=0.3), CHANGED, INCONCLUSIVE),
    (change(low=-1.0, high=-0.5, spread=0.0), CHANGED, FAIL),
    (change(n=8), CHANGED, PASS),
    (change(n=7), CHANGED, INCONCLUSIVE),
    (change(n=1, low=None, high=None), CHANGED, INCONCLUSIVE),
    ({"fixed": None, "unseen": None}, CHANGED, INCONCLUSIVE),
    ({"reload": None}, ("reload",), INCONCLUSIVE),
    ({"reload": replace(SAME, differing=1, error=1e-6)}, ("reload",), FAIL),
    ({**HALF, "reload": replace(SAME, differing=16, error=2.0)}, ("reload",), PASS),
    ({**HALF, "reload": replace(SAME, differing=16, error=2.1)}, ("reload",), FAIL),
    ({**HALF, "reload": replace(SAME, change=0.0)}, ("reload",), PASS),
    ({**HALF, "reload": replace(SAME, differing=1, error=0.1, change=0.0)}, ("reload",), FAIL),
]


@pytest.mark.parametrize(("given", "rules", "outcome"), CASES, ids=str)
def test_rule(given, rules, outcome):
    """The rules that the numbers are about have this outcome, all others pass, and the whole has the outcome too."""
    found = judge(replace(GOOD, **given))
    expected = {rule: outcome if rule in rules else PASS for rule in RULES}
    assert {finding.rule: finding.outcome for finding in found} == expected
    assert outcome_of(found) == outcome


def test_a_failure_weighs_more_than_what_is_missing():
    assert outcome_of(judge(replace(GOOD, fixed=None, ratio_error=1.0))) == FAIL


def test_a_finding_shows_its_number_and_threshold():
    (said,) = [str(finding) for finding in judge(replace(GOOD, ratio_error=3e-5)) if finding.rule == "ratio"]
    assert said == "FAIL         ratio: |ratio - 1| at the first update is 3e-05 (at most 1e-05, in float32)"
