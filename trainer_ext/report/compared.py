"""Several runs beside one another: which belong together, and what they have in common."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import ConfigError
from .facts import FIXED_SAMPLES, RunFacts
from .moments import Moment, moments_of

OF_ONE_RUN = ("date", "command", "from_update")  #: entries of a setup that say nothing about what a run does


@dataclass(frozen=True)
class ComparedRun:
    """
    A run among others.

    Parameters:
        name (`str`):
            Tells it from the others.
        label (`str`):
            What it has in common with runs that differ from it in their seed alone.
        facts ([`RunFacts`]):
            The run.
    """

    name: str
    label: str
    facts: RunFacts


@dataclass(frozen=True)
class Comparison:
    """
    Several runs, the first of which the others are compared with.

    Parameters:
        runs (`Sequence[ComparedRun]`):
            At least two.
    """

    runs: Sequence[ComparedRun]

    @classmethod
    def of(cls, facts: Sequence[RunFacts], labels: Sequence[str] | None = None) -> Comparison:
        """
        Compare runs.

        Args:
            facts (`Sequence[RunFacts]`):
                The runs.
            labels (`Sequence[str]`, *optional*):
                Label of each run; runs of one label are drawn as one curve. By default, runs whose setups differ in nothing but
                the seed have one label.

        Raises:
            [`ConfigError`]: there are fewer than two runs, or not one label for each.
        """
        if len(facts) < 2:
            raise ConfigError("One run cannot be compared: give the folders of two or more runs.")
        if labels is not None and len(labels) != len(facts):
            raise ConfigError(f"--labels has {len(labels)} labels for {len(facts)} runs: give one for each run.")
        names = _names([str(one.folder.path) for one in facts])
        chosen = _labels(facts, names) if labels is None else labels
        return cls([ComparedRun(*row) for row in zip(names, chosen, facts, strict=True)])

    @cached_property
    def by_label(self) -> dict[str, list[ComparedRun]]:
        """The runs of each label."""
        found: dict[str, list[ComparedRun]] = {}
        for run in self.runs:
            found.setdefault(run.label, []).append(run)
        return found

    @cached_property
    def moments(self) -> dict[str, list[list[Moment]]]:
        """The moments of each run, by dataset: those that all runs evaluated, or else the fixed samples that all drew."""
        each = [run.facts.evaluations for run in self.runs]
        if not set.intersection(*map(set, each)):
            each = [moments_of({FIXED_SAMPLES: run.facts.folder.samples()}) for run in self.runs]
        return {name: [found[name] for found in each] for name in each[0] if all(name in found for found in each)}


def _names(paths: Sequence[str]) -> list[str]:
    """Return the names of folders, as short as they can be without being the same."""
    names = [os.path.basename(os.path.abspath(path)) for path in paths]
    return [name if names.count(name) == 1 else path for name, path in zip(names, paths, strict=True)]


def _labels(facts: Sequence[RunFacts], names: Sequence[str]) -> list[str]:
    """Return for each run what the names of its group begin with."""
    groups: dict[str, list[str]] = {}
    keys = [_without_seed(one.setup) or name for one, name in zip(facts, names, strict=True)]
    for key, name in zip(keys, names, strict=True):
        groups.setdefault(key, []).append(name)
    labels = {key: _common(members) for key, members in groups.items()}
    if len(set(labels.values())) < len(labels):
        labels = {key: members[0] for key, members in groups.items()}
    return [labels[key] for key in keys]


def _common(names: Sequence[str]) -> str:
    """Return the names without the numbers at their ends, if that is one name; else the first."""
    shared = {name.rstrip("-_. 0123456789") for name in names}
    return shared.pop() or names[0] if len(shared) == 1 < len(names) else names[0]


def _without_seed(setup: Mapping[str, Any]) -> str:
    """Return what determines a run but for its seed; empty for a run without a setup."""
    if not setup:
        return ""
    options = {name: value for name, value in setup.get("options", {}).items() if name != "seed"}
    rest = {name: value for name, value in setup.items() if name not in OF_ONE_RUN}
    return json.dumps({**rest, "options": options}, sort_keys=True)
