"""How a pipeline combines the denoiser's outputs into the prediction it gives to its scheduler; inferred, then verified."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import GuidanceError

GuidanceRule = Callable[[torch.Tensor, torch.Tensor, float, Mapping[str, Any]], torch.Tensor]
"""From the conditional and unconditional outputs, the guidance scale and the pipeline's call arguments to the prediction."""

TOLERANCE = 1e-5  #: of a rule's prediction, relative to the largest element


def no_guidance(cond: torch.Tensor, uncond: torch.Tensor, scale: float, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Use the only output there is."""
    return cond


def cfg(cond: torch.Tensor, uncond: torch.Tensor, scale: float, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Classifier-free guidance (Ho & Salimans, 2021, eq. 6) in diffusers' convention, where scale 1 is no guidance."""
    return uncond + scale * (cond - uncond)


def cfg_from_cond(cond: torch.Tensor, uncond: torch.Tensor, scale: float, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Classifier-free guidance in the paper's convention, where scale 0 is no guidance."""
    return cond + scale * (cond - uncond)


def cfg_rescaled(cond: torch.Tensor, uncond: torch.Tensor, scale: float, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Guidance with its standard deviation pulled back to the conditional one's (Lin et al., 2023, section 3.4)."""
    guided = cfg(cond, uncond, scale, arguments)
    dims = list(range(1, cond.dim()))
    rescaled = guided * (cond.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True))
    weight = arguments.get("guidance_rescale") or 0.0
    return weight * rescaled + (1 - weight) * guided


def cfg_renormed(cond: torch.Tensor, uncond: torch.Tensor, scale: float, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Guidance scaled back to the conditional output's norm over the last dimension (Qwen-Image, Lumina 2)."""
    guided = cfg(cond, uncond, scale, arguments)
    return guided * (torch.norm(cond, dim=-1, keepdim=True) / torch.norm(guided, dim=-1, keepdim=True))


GUIDANCE_RULES: dict[str, GuidanceRule] = {
    "none": no_guidance,
    "cfg": cfg,
    "cfg_from_cond": cfg_from_cond,
    "cfg_rescaled": cfg_rescaled,
    "cfg_renormed": cfg_renormed,
}


@dataclass(frozen=True)
class Guidance:
    """
    One rule with its conventions: everything between the denoiser's outputs and `scheduler.step`.

    Parameters:
        name (`str`):
            Of the rule, for messages.
        rule (`GuidanceRule`):
            The formula.
        scale (`float`):
            Guidance scale.
        cond_first (`bool`):
            Whether the conditional output comes first.
        sign (`int`):
            -1 where the pipeline negates the result.
        in_float32 (`bool`):
            Whether the outputs are combined in float32 instead of the denoiser's dtype.
        arguments (`Mapping[str, Any]`):
            The pipeline's call arguments, with its defaults.
    """

    name: str
    rule: GuidanceRule
    scale: float
    cond_first: bool
    sign: int
    in_float32: bool
    arguments: Mapping[str, Any]

    def __call__(self, outputs: Sequence[torch.Tensor], num_channels: int) -> torch.Tensor:
        """Combine one output `(B, C', ...)` for each branch into the prediction `(B, num_channels, ...)`."""
        cond, uncond = (outputs[0], outputs[-1]) if self.cond_first else (outputs[-1], outputs[0])
        if self.in_float32:
            cond, uncond = cond.float(), uncond.float()
        prediction = self.sign * self.rule(cond, uncond, self.scale, self.arguments)
        return prediction[:, :num_channels]  # the rest is a variance, which pipelines drop

    def error(self, outputs: Sequence[torch.Tensor], model_output: torch.Tensor) -> float:
        """Return the largest difference to what the pipeline computed, relative to its largest element."""
        difference = (self(outputs, model_output.shape[1]).float() - model_output.float()).abs().max()
        return float(difference / model_output.float().abs().max())


def resolve_rules(guidance: str | GuidanceRule | None) -> dict[str, GuidanceRule]:
    """Turn the user's `guidance` (a name, a function, or `None` for all known rules) into candidates by name."""
    if guidance is None:
        return GUIDANCE_RULES
    if not isinstance(guidance, str):
        return {"custom": guidance}
    if guidance not in GUIDANCE_RULES:
        raise GuidanceError(
            f"Unknown guidance rule {guidance!r}. Known: {', '.join(GUIDANCE_RULES)}. Leave `guidance` out to have the "
            "rule inferred, or pass a function (cond, uncond, guidance_scale, arguments) -> prediction from Python."
        )
    return {guidance: GUIDANCE_RULES[guidance]}


def infer_guidance(
    rules: Mapping[str, GuidanceRule],
    outputs: Sequence[torch.Tensor],
    model_output: torch.Tensor,
    arguments: Mapping[str, Any],
) -> Guidance:
    """
    Find the rule that turns the denoiser's outputs into what the pipeline gave to its scheduler.

    Args:
        rules (`Mapping[str, GuidanceRule]`):
            Candidates.
        outputs (`Sequence[torch.Tensor]`, each of shape `(B, ...)`):
            The denoiser's outputs at one step, in the order of the calls.
        model_output (`torch.Tensor` of shape `(B, ...)`):
            What the pipeline computed from them.
        arguments (`Mapping[str, Any]`):
            Arguments of the pipeline's call, among them the scale.

    Raises:
        [`GuidanceError`]: no candidate reproduces `model_output` within 1e-5, or several that differ elsewhere do.
    """
    candidates = _candidates(rules, len(outputs), arguments)
    errors = [candidate.error(outputs, model_output) for candidate in candidates]
    fitting = [(error, index) for index, error in enumerate(errors) if error <= TOLERANCE]
    if not fitting:
        best = f"{min(errors):.0e}" if errors else "no candidate"
        raise GuidanceError(
            f"No guidance rule of {', '.join(rules)} explains the predictions of this pipeline ({len(outputs)} denoiser "
            f"output(s) a step; best relative error {best}, allowed {TOLERANCE:.0e}). Pass `guidance=` a function "
            "(cond, uncond, guidance_scale, arguments) -> prediction that does what the pipeline does."
        )
    chosen = candidates[min(fitting)[1]]
    _refuse_ambiguity(chosen, [candidates[index] for _, index in fitting], outputs, model_output)
    return chosen


def _candidates(rules: Mapping[str, GuidanceRule], num_outputs: int, arguments: Mapping[str, Any]) -> list[Guidance]:
    """All rules with all conventions, the plainest first."""
    single = num_outputs == 1
    known = GUIDANCE_RULES.values()
    usable = {name: rule for name, rule in rules.items() if rule not in known or (rule is no_guidance) == single}
    scales = [
        arguments[key] for key in ("true_cfg_scale", "guidance_scale") if isinstance(arguments.get(key), int | float)
    ]
    conventions = itertools.product(
        usable.items(), dict.fromkeys(scales or [1.0]), (1, -1), (False, True), (False, True)
    )
    return [
        Guidance(name, rule, scale, cond_first, sign, in_float32, arguments)
        for (name, rule), scale, sign, cond_first, in_float32 in conventions
    ]


def _refuse_ambiguity(
    chosen: Guidance, fitting: Sequence[Guidance], outputs: Sequence[torch.Tensor], model_output: torch.Tensor
) -> None:
    """Two rules may agree on these outputs by chance (equal branches). They must agree on random ones too."""
    generator = torch.Generator().manual_seed(0)
    probe = [torch.randn(output.shape, generator=generator).to(output) for output in outputs]
    expected = chosen(probe, model_output.shape[1])
    differing = {other.name for other in fitting if other.error(probe, expected) > 1e-2}
    if differing:
        raise GuidanceError(
            f"Several guidance rules explain the predictions of this pipeline ({chosen.name} and {', '.join(differing)}), "
            "because the prompt does not change them. Pass `guidance=` the name of the right one, or check the model."
        )
