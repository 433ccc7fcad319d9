"""The page that shows several runs beside one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ddpo_plugins.names import DETECTORS

from ..runs.measures.paired import PairedFigure
from .compared import ComparedRun, Comparison
from .drawing.learning_curves import Curve, draw_curves, of_gold, of_gold_over_kl, of_rewards, of_rollouts
from .drawing.svg import Plot, plot
from .facts import RunFacts
from .gallery import MAX_CARDS, evenly
from .moments import Moment, key_of
from .page import check_place, write_within_limit
from .tables import compared, ends, pairs

QUERIES = "images scored for training"
ROOT_KL = "square root of the KL divergence to the base model (nats an image)"

GAIN = "gain over the base, in its std"


@dataclass(frozen=True)
class Cell:
    """
    A prompt and seed as one model draws it.

    Parameters:
        title (`str`):
            The model.
        reward (`float`, *optional*):
            The picture's reward.
        file (`Path`, *optional*):
            The picture; `None` if it is missing.
    """

    title: str
    reward: float | None
    file: Path | None


@dataclass(frozen=True)
class Row:
    """
    A prompt and seed as all models draw it.

    Parameters:
        dataset, prompt (`str`), seed (`int`):
            What is drawn.
        cells (`Sequence[Cell]`):
            The first run's base model, then each run in the end.
    """

    dataset: str
    prompt: str
    seed: int
    cells: Sequence[Cell]


def write_comparison(folders: Sequence[Path], output: Path, labels: Sequence[str] | None = None) -> Comparison:
    """
    Write a page that compares runs.

    Args:
        folders (`Sequence[Path]`):
            Folders of two or more runs.
        output (`Path`):
            The file to write.
        labels (`Sequence[str]`, *optional*):
            See [`Comparison.of`].

    Raises:
        [`ConfigError`]: a folder holds no run, or there are too few, or not one label for each.
        [`OutputDirError`]: the page cannot be written.
    """
    comparison = Comparison.of([RunFacts.read(folder) for folder in folders], labels)
    check_place(output)
    page = ComparisonPage(comparison)
    files = [cell.file for row in page.rows for cell in row.cells if cell.file is not None]
    write_within_limit(output, "compare.html.jinja", page.context(), files)
    return comparison


@dataclass(frozen=True)
class ComparisonPage:
    """
    What the page shows.

    Parameters:
        comparison ([`Comparison`]):
            The runs.
    """

    comparison: Comparison

    def context(self) -> dict[str, Any]:
        """Return the values for the template, without pictures."""
        comparison = self.comparison
        return {
            "title": f"Comparison: {', '.join(run.name for run in comparison.runs)}",
            "runs": comparison.runs,
            "first": comparison.runs[0],
            "differences": {run.name: self.differences(run) for run in comparison.runs[1:]},
            "plots": list(self._plots()),
            "rows": self.rows,
            "rewards": {" + ".join(run.facts.setup["rewards"]) for run in comparison.runs if run.facts.setup},
            "grouped": len(comparison.by_label) < len(comparison.runs),
        }

    @cached_property
    def rows(self) -> list[Row]:
        """The prompts and seeds that all runs draw, as far as they are shown."""
        found = []
        for dataset, each in self.comparison.moments.items():
            runs = [ends(run.facts, moments) for run, moments in zip(self.comparison.runs, each, strict=True)]
            keys = [key for key in map(key_of, runs[0][1].records) if all(key in then.positions for _, then in runs)]
            first, share = runs[0][0], max(1, MAX_CARDS // len(self.comparison.moments))
            columns = {run.name: then for run, (_, then) in zip(self.comparison.runs, runs, strict=True)}
            if first.updates == 0:
                columns = {"base model": first, **columns}
            for index in evenly(len(keys), share):
                _, seed, prompt = key = keys[index]
                cells = [_cell(title, moment, moment.positions.get(key)) for title, moment in columns.items()]
                found.append(Row(dataset, prompt, seed, cells))
        return found

    def differences(self, run: ComparedRun) -> dict[str, PairedFigure]:
        """Return how a run differs in the end from the first run, in each value that both have, on the same images."""
        own, other = run.facts, self.comparison.runs[0].facts
        columns = ["reward"] * (bool(own.setup) and own.setup.get("rewards") == other.setup.get("rewards"))
        columns += [name for name in other.held_out if name in own.held_out]
        columns += [f"{DETECTORS}{name}" for name in other.detectors if name in own.detectors]
        found = {
            name: compared(np.concatenate(list(self._pairs(run, name)))) for name in columns if self.comparison.moments
        }
        return {name: figure for name, figure in found.items() if figure is not None}

    def _pairs(self, run: ComparedRun, name: str) -> Iterator[np.ndarray]:
        index = self.comparison.runs.index(run)
        for each in self.comparison.moments.values():
            (_, reference), (_, then) = (ends(self.comparison.runs[i].facts, each[i]) for i in (0, index))
            yield pairs(reference, then, name, range(len(then.records)))

    def _plots(self) -> Iterator[Plot]:
        """Draw the learning curves: of rollouts, and of the datasets that all runs evaluated."""
        drawn: list[tuple[str, str, str, Callable[[RunFacts], Curve]]] = [
            ("Mean reward of each rollout (prompts differ)", QUERIES, "reward", of_rollouts)
        ]
        if all(run.facts.evaluations for run in self.comparison.runs):
            for dataset in self.comparison.moments:
                drawn += [
                    (f"Reward, {dataset}", QUERIES, "reward", partial(of_rewards, dataset=dataset)),
                    (f"Held-out rewards, {dataset}", QUERIES, GAIN, partial(of_gold, dataset=dataset)),
                    (f"Held-out rewards, {dataset}", ROOT_KL, GAIN, partial(of_gold_over_kl, dataset=dataset)),
                ]
        for index, (title, xlabel, ylabel, curve) in enumerate(drawn):
            curves = {label: [curve(run.facts) for run in runs] for label, runs in self.comparison.by_label.items()}
            if any(np.isfinite(one.values).any() for runs in curves.values() for one in runs):
                yield plot(f"{title}, against {xlabel}", draw_curves(curves, xlabel, ylabel), f"curves-{index}")


def _cell(title: str, moment: Moment, index: int | None) -> Cell:
    if index is None:
        return Cell(title, None, None)
    return Cell(title, moment.records[index].get("reward"), moment.pictures.get(index))
