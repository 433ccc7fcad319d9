"""What a report shows of a run: the values for its template."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ddpo_plugins.names import DETECTORS

from ..runs.measures.formulas import column
from ..runs.measures.paired import PairedFigure
from ..types import FloatArray
from . import tables
from .drawing import plots
from .drawing.step_maps import step_maps
from .drawing.svg import Plot
from .facts import RunFacts
from .gallery import Card, cards, left_out
from .offenders import Offender, offenders
from .progress import Band, Progress
from .votes import VoteResult

SECTIONS = {
    "verdict": "Verdict",
    "figures": "Before and after",
    "curves": "Curves",
    "pictures": "Pictures",
    "prompts": "Prompts",
    "detectors": "Detectors",
    "optimiser": "Optimiser",
    "cost": "Cost",
    "provenance": "Provenance",
}
OPTIMISER = ("ratio", "approx_kl", "clipfrac", "kl", "loss", "grad_norm", "frac_reward_zero_std")


@dataclass(frozen=True)
class Content:
    """
    A report, before it is written.

    Parameters:
        facts ([`RunFacts`]):
            The run.
        votes ([`VoteResult`], *optional*):
            What people preferred.
        full (`bool`):
            Show every prompt at every evaluation.
    """

    facts: RunFacts
    votes: VoteResult | None = None
    full: bool = False

    def context(self, vote_page: str | None) -> dict[str, Any]:
        """Return the values for the template, without pictures; `vote_page` is the address of the page for votes."""
        facts = self.facts
        return {
            "title": f"Report: {facts.name}",
            "facts": facts,
            "sections": SECTIONS,
            "vote_page": vote_page,
            **self._results(),
            **self._plots(),
            "cards": self.cards,
            "pictures_note": left_out(facts, self.cards),
            "offenders": self.offenders,
            "cost": tables.cost(facts),
            "speed": tables.images_per_second(facts),
        }

    def _results(self) -> dict[str, Any]:
        """Return what was measured in words and tables."""
        facts, rows = self.facts, tables.prompt_rows(self.facts)
        seen, unseen = ([row for row in rows if row.seen == seen] for seen in (True, False))
        return {
            "verdict": self.verdict,
            "votes": None if self.votes is None else str(self.votes),
            "remarks": list(self._remarks()),
            "changes": self.changes,
            "generalisation": tables.generalisation(facts),
            "end_name": f"update {facts.chosen}, the one to use" if facts.chosen else "the last evaluation",
            "held_out": next((name.partition("/")[2] for name in facts.held_out), None),
            "prompts": {"Trained on": seen, "Never trained on": unseen},
        }

    def _plots(self) -> dict[str, Any]:
        """Return everything that is drawn."""
        facts, judged = self.facts, self._judged
        return {
            "curves": {
                name: plots.of_evaluations(one, facts.chosen, f"curves-{index}")
                for index, (name, one) in enumerate(judged)
            },
            "measured_kl": any(np.isfinite(one.kl).any() for _, one in judged),
            "rollouts_plot": plots.rewards_of_rollouts(facts.rewards),
            "detections": self._detections(),
            "optimiser": self._optimiser(),
        }

    @cached_property
    def verdict(self) -> dict[str, Any]:
        """The verdict as the page shows it."""
        found = self.facts.summary.verdict
        if found is None:
            return {"kind": "not_judged", "sentence": self.facts.sentence, "rule": "", "numbers": {}}
        kind = found.kind.name.lower()
        return {"kind": kind, "sentence": found.sentence, "rule": found.rule, "numbers": found.numbers}

    @property
    def changes(self) -> dict[str, PairedFigure]:
        """The paired figures of the run by name."""
        summary = self.facts.summary
        own = {
            "trained reward, fixed samples": summary.paired,
            "... as the base draws by default": summary.paired_by_default,
        }
        return {
            **{name: figure for name, figure in own.items() if figure is not None},
            **summary.held_out,
            **summary.detections,
        }

    @cached_property
    def cards(self) -> list[Card]:
        """The prompts whose pictures are shown."""
        return cards(self.facts, self.full)

    @cached_property
    def offenders(self) -> dict[str, list[Offender]]:
        """The images that each detector is surest about."""
        return {name: offenders(self.facts, name) for name in self.facts.detectors}

    @property
    def files(self) -> list[Path]:
        """The pictures, the most important first."""
        marked = [frame.file for card in self.cards for frame in card.marked]
        worst = [one.file for found in self.offenders.values() for one in found]
        between = [frame.file for card in self.cards for frame in card.between]
        return [file for file in (*marked, *worst, *between) if file is not None]

    @cached_property
    def _progress(self) -> dict[str, Progress]:
        return {name: Progress.of(self.facts, moments) for name, moments in self.facts.moments.items()}

    @property
    def _judged(self) -> list[tuple[str, Progress]]:
        """The datasets whose rewards can be compared with the base model's."""
        return [(name, one) for name, one in self._progress.items() if one.relative]

    def _remarks(self) -> Iterator[str]:
        """Yield what is missing for a judgement."""
        if not self.facts.evaluations:
            yield "There are no evaluations; below, the fixed samples stand in for them."
        without_base = [name for name, one in self._progress.items() if not one.relative]
        if without_base:
            yield f"Not evaluated before training, so that there is no gain to show: {', '.join(without_base)}."

    def _detections(self) -> list[Plot]:
        """Draw detectors over time: in rollouts, whose prompts differ, and in evaluations."""
        facts = self.facts
        rollouts = np.array(list(facts.by_rollout), np.float64)
        in_rollouts = {name: (rollouts, self._rollout_band(name)) for name in facts.detectors}
        drawn = [plots.detections(in_rollouts, "rollout", "detectors-rollouts")] if len(rollouts) else []
        for index, (name, one) in enumerate(self._progress.items()):
            series = {detector: (one.updates, band) for detector, band in one.detectors.items()}
            drawn.append(plots.detections(series, f"updates ({name})", f"detectors-{index}"))
        return [plot for plot in drawn if plot is not None]

    def _rollout_band(self, detector: str) -> Band:
        return Band.of([column(records, f"{DETECTORS}{detector}") for records in self.facts.by_rollout.values()])

    def _optimiser(self) -> list[Plot]:
        logs = [log for log in self.facts.logs if "loss" in log]
        series = {name: _logged(logs, name) for name in OPTIMISER if any(name in log for log in logs)}
        maps = step_maps(self.facts.steps)
        if not series:
            return maps
        title, places = "Figures of the optimiser against updates", _logged(logs, "step")
        return [*maps, plots.small_multiples(title, series, places, "updates", "optimiser")]


def _logged(logs: list[dict[str, Any]], name: str) -> FloatArray:
    values = np.array([log.get(name) for log in logs], np.float64)
    return np.where(np.isfinite(values), values, np.nan)
