"""The doctor's report: the facts that were found, and a refusal if there is one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from .facts import CallFacts, DenoiserFacts, GuidanceFacts, PipelineFacts, SamplerFacts
from .training_facts import AdapterFacts, CostFacts, GradientFacts, ReplayFacts

Facts: TypeAlias = (
    PipelineFacts
    | DenoiserFacts
    | SamplerFacts
    | GuidanceFacts
    | CallFacts
    | AdapterFacts
    | ReplayFacts
    | GradientFacts
    | CostFacts
)


@dataclass(frozen=True)
class Report:
    """
    What the doctor found.

    Parameters:
        facts (`tuple[Facts, ...]`):
            What was found, up to the refusal if there is one.
        refusal (`str`, *optional*):
            Why the pipeline cannot be trained, and what to do. `None` if it can.
    """

    facts: tuple[Facts, ...]
    refusal: str | None

    @property
    def can_be_trained(self) -> bool:
        """The verdict."""
        return self.refusal is None

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dumps` takes: by kind of facts, a list of them, since a step may make several calls."""
        found: dict[str, list[dict[str, Any]]] = {}
        for facts in self.facts:
            found.setdefault(type(facts).__name__.removesuffix("Facts").lower(), []).append(asdict(facts))
        return {"can_be_trained": self.can_be_trained, "refusal": self.refusal, **found}
