"""Which guidance rules are candidates: the user's, those of plugins, the built-in ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch

from ddpo_plugins import GuidanceSpec

from ...errors import GuidanceError
from .rules import GUIDANCE_RULES

GuidanceRule: TypeAlias = Callable[[tuple[torch.Tensor, ...], float, Mapping[str, Any]], torch.Tensor]
"""From the denoiser's outputs (conditional first), guidance scale and arguments of the pipeline's call to the prediction."""

_HOW_TO = """Say what the pipeline does with them, as a function:

    def rule(outputs, guidance_scale, arguments):
        {outputs} = outputs  # each (B, C, ...), conditional first; order, sign and precision are found out
        return {prediction}

and pass guidance=rule to DDPOTrainer or LogProbPipeline. A plugin offers it to the command line too, by the hook
ddpo_register_guidance (docs/pipelines.md, "A guidance rule of your own")."""


def how_to_pass_a_rule(num_outputs: int) -> str:
    """Return what to do where no rule fits, with a rule for as many outputs as an example."""
    others = [f"other_{index}" for index in range(1, num_outputs - 1)]
    outputs = ", ".join(["cond", *others, "uncond"][: max(num_outputs, 1)])
    prediction = "uncond + guidance_scale * (cond - uncond)" if num_outputs > 1 else "cond"
    return _HOW_TO.format(outputs=outputs if num_outputs > 1 else "(cond,)", prediction=prediction)


def resolve_rule(
    guidance: str | GuidanceRule | GuidanceSpec | None, offered: Iterable[GuidanceSpec] = ()
) -> GuidanceSpec | None:
    """
    Turn the user's `guidance` into a rule: a name of a built-in or offered one, a function, or `None` if it is to be inferred.

    Raises:
        [`GuidanceError`]: there is no rule of that name, or there are two.
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
    Return the candidates for a class of pipelines, those that know most about it first.

    Only the one that was asked for; else those that plugins offer for the class or one that it is derived from, then the
    built-in ones.
    """
    if asked is not None:
        return ((asked,),)
    names = {kind.__name__ for kind in pipeline.__mro__}
    return tuple(spec for spec in offered if names & set(spec.pipelines)), tuple(GUIDANCE_RULES.values())
