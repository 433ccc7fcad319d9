"""The phases of a run that was resumed: whether its evaluations still measure the same, and what was ever trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ddpo_plugins.names import REWARDS

Setup = Mapping[str, Any]  #: an entry of `run.json`

#: Options with which an evaluation's images are drawn.
DRAWN_WITH = (
    "num_inference_steps",
    "guidance_scale",
    "guidance",
    "eta",
    "sampler",
    "noise_level",
    "sde_window",
    "pipeline_kwargs",
    "vae_tiling",
)


def change_of_measure(setups: Sequence[Setup]) -> str | None:
    """Say what makes evaluations of a run incomparable, and since which update: `"the reward changed at update 4"`."""
    for before, after in pairwise(setups):
        changed = _changed(before, after)
        if changed is not None:
            return f"{changed} changed at update {after.get('from_update')}"
    return None


def never_trained(setups: Sequence[Setup]) -> list[str]:
    """Return the columns of the held-out rewards of the last setup that no setup trained on."""
    trained = {name for setup in setups for name in setup.get("rewards", {})}
    held_out = setups[-1].get("eval_rewards", {}) if setups else {}
    return [f"{REWARDS}{name}" for name in held_out if name not in trained]


def _changed(before: Setup, after: Setup) -> str | None:
    if _trained(before) != _trained(after):
        return "the reward"
    for kind, entries in (("held-out reward", "eval_rewards"), ("detector", "detectors")):
        there, here = before.get(entries, {}), after.get(entries, {})
        for name in there.keys() & here.keys():
            if there[name] != here[name]:
                return f"the {kind} {name}"
    options, others = before.get("options", {}), after.get("options", {})
    return next((name for name in DRAWN_WITH if options.get(name) != others.get(name)), None)


def _trained(setup: Setup) -> dict[str, Any]:
    """Return all that the trained reward is a sum of."""
    detectors = {name: entry for name, entry in setup.get("detectors", {}).items() if entry.get("weight")}
    return {**setup.get("rewards", {}), **detectors}
