"""`reproduction.json`: what was reproduced, on what, and the outcome of each rule; and whether such a file agrees with itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.resources import files
from json import loads
from typing import Any

from ..runs.folder import RunFolder
from ..runs.measures.paired import PairedFigure
from ..runs.summary import RunSummary
from ..shipped import EMBEDDED
from .evidence import Evidence
from .files import KitFiles
from .reading import changes_by_dataset, evidence_of
from .rules import Finding, judge, outcome_of

FORMAT = 1
NUM_SHOWN = 20  #: rollouts of the curve


def schema() -> dict[str, Any]:
    """Return the JSON schema of the file."""
    return dict(loads((files("trainer_ext") / "reproduction" / "schema.json").read_text(encoding="utf-8")))


def document_of(folder: RunFolder) -> dict[str, Any]:
    """Return the content of the file for a run's folder."""
    kit, evidence, setups = KitFiles(folder.path), evidence_of(folder), folder.setups()
    findings = judge(evidence)
    return {
        "format": FORMAT,
        "outcome": outcome_of(findings).value,
        **_identity(kit, setups[-1]),
        "date": setups[0]["date"],
        "versions": setups[-1]["packages"],
        "findings": [described(finding) for finding in findings],
        "evidence": asdict(evidence),
        **_cost(folder, kit),
        **_results(folder),
    }


def described(finding: Finding) -> dict[str, Any]:
    """Return a finding as JSON holds it."""
    numbers = {"value": finding.value, "threshold": finding.threshold}
    finite = {name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()}
    return {"rule": finding.rule, "outcome": finding.outcome.value, **finite, "said": finding.said}


def disagreements(document: Mapping[str, Any]) -> list[str]:
    """Return where a file does not say what the rules make of its own evidence; none if it does."""
    findings = judge(Evidence.of(document["evidence"]))
    expected = {finding.rule: finding.outcome.value for finding in findings}
    found = {finding["rule"]: finding["outcome"] for finding in document["findings"]}
    wrong = [
        f"the rule {rule!r} is {found.get(rule)}, and {expected.get(rule)} by its evidence"
        for rule in {**expected, **found}
        if found.get(rule) != expected.get(rule)
    ]
    outcome = outcome_of(findings).value
    told = (
        [] if document["outcome"] == outcome else [f"the outcome is {document['outcome']}, and {outcome} by the rules"]
    )
    return wrong + told


def _identity(kit: KitFiles, setup: Mapping[str, Any]) -> dict[str, Any]:
    plan = kit.plan()
    return {
        "task": plan.task,
        "model": plan.model,
        "embedded": plan.model == EMBEDDED,  # its runs say that the kit works, and nothing about Stable Diffusion
        "pipeline": setup["pipeline"],
        "budget": plan.budget,
        "memory": plan.memory,
        "presets": list(plan.presets),
        "changed": list(plan.changed),
        "device": setup["device"],
        "device_bytes": plan.device_bytes,
        "processes": setup["processes"],
    }


def _cost(folder: RunFolder, kit: KitFiles) -> dict[str, Any]:
    plan, sessions = kit.plan(), kit.sessions()
    speeds = [log["images_per_second"] for log in folder.logs() if "images_per_second" in log]
    return {
        "estimate": {"hours": plan.hours, "training_bytes": plan.training_bytes},
        "measured": {
            "hours": sum(session.seconds for session in sessions) / 3600,
            "sessions": len(sessions),
            "peak_bytes": max((session.peak_bytes for session in sessions), default=0),
            "images_per_second": sum(speeds) / len(speeds) if speeds else None,
        },
        "rollouts": len(folder.rollouts()),
    }


def _results(folder: RunFolder) -> dict[str, Any]:
    summary = RunSummary.of(folder)
    verdict = summary.verdict
    return {
        "paired_by_default": None if summary.paired_by_default is None else _figure(summary.paired_by_default),
        "by_prompts": {name: asdict(change) for name, change in changes_by_dataset(folder).items()},
        "held_out": {name: _figure(figure) for name, figure in summary.held_out.items()},
        "detections": {name: _figure(figure) for name, figure in summary.detections.items()},
        "verdict": None if verdict is None else {"kind": verdict.kind.value, "sentence": verdict.sentence},
        "curve": list(_curve(folder)),
    }


def _figure(figure: PairedFigure) -> dict[str, Any]:
    return {name: None if math.isnan(value) else value for name, value in asdict(figure).items()}


def _curve(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """Yield mean and standard deviation of the first rollouts' rewards."""
    for index, rewards in list(folder.rewards().items())[:NUM_SHOWN]:
        if len(rewards):
            yield {"rollout": index, "reward": float(rewards.mean()), "std": float(rewards.std()), "n": len(rewards)}
