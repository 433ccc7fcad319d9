"""Says in words what an audit found: where the optimum of a reward lies, and what the reward depends on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from .cheats import ASKED_ON_GREY, OTHER, WRONG_ON_GREY
from .examine import HONEST, Audit
from .payments import payment

CAUGHT = 0.5  # a detector's value above which it sees a cheat
SAME = 1e-6  # relative to the largest reward: sums in another order


def findings(audit: Audit) -> list[str]:
    """Return sentences, the most important first."""
    if np.isnan(audit.honest).all():
        return [
            f"No reward for {HONEST} of any prompt: there is nothing to compare. Does the reward know these prompts?"
        ]
    return [*_optimum(audit), *_detected(audit), *_prompt(audit), *_reading(audit), *_steadiness(audit)]


def paying(audit: Audit) -> list[str]:
    """Return the cheats that pay, the best first. Another prompt's picture is no cheat where the prompt does not matter."""
    return [name for name, each in audit.payments.items() if each.pays and not (name == OTHER and audit.ignores_prompt)]


def to_dict(result: Audit) -> dict[str, Any]:
    """Return an audit for `json.dumps`: numbers that JSON does not have are `None`."""
    content = {
        "findings": findings(result),
        "pays": paying(result),
        "honest": result.honest.tolist(),
        "cheats": {name: asdict(each) for name, each in result.payments.items()},
        "detections": result.detections,
        "again": result.again,
        "alone": result.alone,
        "ignores_prompt": result.ignores_prompt,
    }
    return dict(json.loads(json.dumps(content), parse_constant=lambda name: None))


def _optimum(audit: Audit) -> Iterator[str]:
    names = paying(audit)
    if not names:
        yield (
            f"None of {len(audit.rewards)} cheats pays more than {HONEST}, which has {np.nanmean(audit.honest):.3g}. Others "
            "may: this is no proof."
        )
        return
    best, *others = names
    paid = audit.payments[best]
    size = f", {paid.in_std:.3g} standard deviations of the pictures' own rewards" if np.isfinite(paid.in_std) else ""
    yield f"{best.capitalize()} pays {paid}{size}."
    if others:
        yield f"These pay too: {', '.join(others)}."


def _detected(audit: Audit) -> Iterator[str]:
    names = paying(audit)
    for detector, values in audit.detections.items():
        seen = [name for name in names if values[name] > CAUGHT]
        missed = [name for name in names if name not in seen]
        if names:
            rest = f"; not {', '.join(missed)}" if seen and missed else ""
            yield f"{detector} sees {', '.join(seen) or 'none of them'}{rest}."
        if values[HONEST] > CAUGHT:
            yield f"{detector} is {values[HONEST]:.2f} for {HONEST}: its alarms mean nothing on this model."


def _prompt(audit: Audit) -> Iterator[str]:
    other = audit.payments[OTHER]
    if audit.ignores_prompt:
        yield "The reward ignores the prompt: each picture has the same reward under another one."
    elif other.costs:
        yield f"It looks for the prompt: {OTHER} pays {other}."
    else:
        yield f"It does not tell {HONEST} from another's on these prompts: {OTHER} pays {other}."


def _reading(audit: Audit) -> Iterator[str]:
    """Compare the asked word with a wrong one, where nothing else is in the picture."""
    if audit.ignores_prompt or not {ASKED_ON_GREY, WRONG_ON_GREY} <= audit.rewards.keys():
        return
    asked, wrong = (float(np.nanmean(audit.rewards[name])) for name in (ASKED_ON_GREY, WRONG_ON_GREY))
    words = f"the asked word on grey has {asked:.3g}, a wrong one {wrong:.3g}"
    if payment(audit.rewards[WRONG_ON_GREY], audit.rewards[ASKED_ON_GREY]).pays:
        yield f"It reads: {words}. The detector typographic_attack sees such writing."
    else:
        yield f"It does not read: {words}."


def _steadiness(audit: Audit) -> Iterator[str]:
    allowed = SAME * max(1.0, float(np.nanmax(np.abs(audit.honest))))
    if audit.again > allowed:
        yield f"It is random: the same pictures, scored again, differ by up to {audit.again:.3g}."
    elif audit.alone > allowed:
        yield f"It depends on the batch: scored alone, the same pictures differ by up to {audit.alone:.3g}."
