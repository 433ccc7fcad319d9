"""The doctor's report: the facts that were found, and a refusal if there is one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypeVar

from .estimate import EstimateFacts
from .facts import CallFacts, DenoiserFacts, GuidanceFacts, PipelineFacts, SamplerFacts, SolverFacts
from .training_facts import AdapterFacts, CostFacts, GradientFacts, ReplayFacts

Facts: TypeAlias = (
    PipelineFacts
    | DenoiserFacts
    | SamplerFacts
    | SolverFacts
    | GuidanceFacts
    | CallFacts
    | AdapterFacts
    | ReplayFacts
    | GradientFacts
    | CostFacts
    | EstimateFacts
)

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Report:
    """
    The doctor's findings.

    Parameters:
        facts (`tuple[Facts, ...]`):
            The findings; where there is a refusal, those before it.
        refusal (`str`, *optional*):
            Why the pipeline cannot be trained, and what to do. `None` if it can.
    """

    facts: tuple[Facts, ...]
    refusal: str | None

    @property
    def can_be_trained(self) -> bool:
        """Whether the pipeline can be trained."""
        return self.refusal is None

    def one(self, kind: type[Kind]) -> Kind:
        """Return the facts of a kind that a report without a refusal has once."""
        (found,) = (facts for facts in self.facts if isinstance(facts, kind))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for `json.dumps`: a list for each kind of facts, because a step may make several calls."""
        found: dict[str, list[dict[str, Any]]] = {}
        for facts in self.facts:
            found.setdefault(type(facts).__name__.removesuffix("Facts").lower(), []).append(asdict(facts))
        return {"can_be_trained": self.can_be_trained, "refusal": self.refusal, **found}
