"""The images that detectors are surest about, with what the detectors recorded of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ddpo_plugins.names import DETECTORS

from ..runs.records import Record, numbered
from .facts import RunFacts

NUM_OFFENDERS = 6  #: of each detector


@dataclass(frozen=True)
class Offender:
    """
    An image that a detector is sure about.

    Parameters:
        score (`float`):
            How sure, in [0, 1].
        moment (`str`):
            When it was drawn.
        prompt (`str`), seed (`int`):
            What was asked for.
        evidence (`Mapping[str, Any]`):
            What the detector recorded, by name.
        file (`Path`, *optional*):
            The picture, if it was kept.
    """

    score: float
    moment: str
    prompt: str
    seed: int
    evidence: Mapping[str, Any]
    file: Path | None


class Judged(NamedTuple):
    """
    An image that detectors judged.

    Parameters:
        record (`Mapping`):
            Its record.
        moment (`str`):
            When it was drawn.
        file (`Path`, *optional*):
            The picture, if it was kept.
    """

    record: Record
    moment: str
    file: Path | None


def offenders(facts: RunFacts, detector: str) -> list[Offender]:
    """
    Return the images that a detector is surest about, at most one for each prompt and seed, the surest first: those of which
    there can be a picture, in evaluations or kept from rollouts, or else of all rollouts.
    """
    return _worst(_pictured(facts), detector) or _worst(_trained(facts), detector)


def _worst(images: Iterator[Judged], detector: str) -> list[Offender]:
    best: dict[tuple[int, str], tuple[float, Judged]] = {}
    for image in images:
        score, key = image.record.get(f"{DETECTORS}{detector}") or 0.0, (image.record["seed"], image.record["prompt"])
        if score > 0 and (key not in best or score > best[key][0]):
            best[key] = score, image
    surest = sorted(best.values(), key=lambda found: -found[0])[:NUM_OFFENDERS]
    return [_offender(score, image, f"{detector}/") for score, image in surest]


def _offender(score: float, image: Judged, prefix: str) -> Offender:
    record = image.record
    evidence = {
        name.removeprefix(prefix): value
        for name, value in record.items()
        if name.startswith(prefix) and value not in (None, "")
    }
    return Offender(score, image.moment, record["prompt"], record["seed"], evidence, image.file)


def _pictured(facts: RunFacts) -> Iterator[Judged]:
    """Yield the images of evaluations, and those of rollouts that were kept."""
    for dataset, moments in facts.evaluations.items():
        for moment in moments:
            for index, record in enumerate(moment.records):
                yield Judged(record, f"{dataset}, after {moment.updates} updates", moment.pictures.get(index))
    for rollout, records in facts.by_rollout.items():
        for index, file in numbered(facts.folder.kept_images(rollout), "", ".png").items():
            if index < len(records):
                yield Judged(records[index], f"rollout {rollout}", file)


def _trained(facts: RunFacts) -> Iterator[Judged]:
    """Yield all images of rollouts."""
    for rollout, records in facts.by_rollout.items():
        yield from (Judged(record, f"rollout {rollout}", None) for record in records)
