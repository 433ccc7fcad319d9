"""Which guidance rules are candidates: the user's, those of plugins, the built-in ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch

from ddpo_plugins import GuidanceSpec

from ...errors import GuidanceError
from .rules import GUIDANCE_RULES

GuidanceRule: TypeAlias = Callable[[tuple[torch.Tensor, ...], float, Mapping[str, Any]], torch.Tensor]
"""Maps the denoiser's outputs (conditional first), the guidance scale and the call's arguments to the prediction."""

_HOW_TO = """Write what the pipeline does with them as a function:

    def rule(outputs, guidance_scale, arguments):
        {outputs} = outputs  # each (B, C, ...), conditional first; order, sign and precision are inferred
        return {prediction}

and pass guidance=rule to DDPOTrainer or LogProbPipeline. A plugin offers it to the command line too, by the hook
ddpo_register_guidance (docs/pipelines.md, "A guidance rule of your own")."""


def how_to_pass_a_rule(num_outputs: int) -> str:
    """Return advice for a pipeline that no rule fits, with an example for this number of outputs."""
    others = [f"other_{index}" for index in range(1, num_outputs - 1)]
    outputs = ", ".join(["cond", *others, "uncond"][: max(num_outputs, 1)])
    prediction = "uncond + guidance_scale * (cond - uncond)" if num_outputs > 1 else "cond"
    return _HOW_TO.format(outputs=outputs if num_outputs > 1 else "(cond,)", prediction=prediction)


def resolve_rule(
    guidance: str | GuidanceRule | GuidanceSpec | None, offered: Iterable[GuidanceSpec] = ()
) -> GuidanceSpec | None:
    """
    Turn the user's `guidance` into a rule: the name of a built-in or offered rule, a function, or `None` to infer it.

    Raises:
        [`GuidanceError`]: no rule has that name, or two have it.
    """
    if guidance is None or isinstance(guidance, GuidanceSpec):
        return guidance
    if not isinstance(guidance, str):
        return GuidanceSpec("custom", guidance, num_outputs=None)
    plugins = {spec.name: spec for spec in offered}
    if guidance in plugins and guidance in GUIDANCE_RULES:
        raise GuidanceError(
            f"The guidance rule {guidance!r} is built in, and a plugin offers another by that name. Rename the plugin's."
        )
    known = {**GUIDANCE_RULES, **plugins}
    if guidance not in known:
        raise GuidanceError(
            f"Unknown guidance rule {guidance!r}. Known: {', '.join(known)}. Leave `guidance` out to have the rule inferred, "
            "or pass a function rule(outputs, guidance_scale, arguments) from Python: DDPOTrainer(..., guidance=rule)."
        )
    return known[guidance]


def candidate_rules(
    asked: GuidanceSpec | None, offered: Iterable[GuidanceSpec], pipeline: type
) -> tuple[tuple[GuidanceSpec, ...], ...]:
    """
    Return the candidates for a class of pipelines in tiers, the most specific first.

    A rule that was asked for is the only candidate. Otherwise plugins' rules for the class or one of its base classes come
    first, then the built-in ones.
    """
    if asked is not None:
        return ((asked,),)
    names = {kind.__name__ for kind in pipeline.__mro__}
    return tuple(spec for spec in offered if names & set(spec.pipelines)), tuple(GUIDANCE_RULES.values())
