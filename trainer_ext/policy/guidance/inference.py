"""Infers, and verifies, how a pipeline combines the denoiser's outputs into the prediction for its scheduler."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from ddpo_plugins import GuidanceSpec
from ddpo_plugins.errors import describe
from ddpo_plugins.guarding import ChangedSettingError, unchanged_settings

from ...errors import GuidanceError
from .candidates import GuidanceRule, how_to_pass_a_rule

TOLERANCE = 1e-5  #: of a rule's prediction, relative to the largest element


@dataclass(frozen=True)
class Guidance:
    """
    One rule with its conventions: everything between the denoiser's outputs and `scheduler.step`.

    Parameters:
        name (`str`):
            Name of the rule, for messages.
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
        ordered = tuple(outputs) if self.cond_first else tuple(reversed(outputs))
        own = tuple(output.float().clone() if self.in_float32 else output.clone() for output in ordered)
        prediction = self.sign * self.rule(own, self.scale, MappingProxyType(dict(self.arguments)))
        return prediction[:, :num_channels]  # the other channels are a variance, which pipelines drop

    def relative_error(self, outputs: Sequence[torch.Tensor], model_output: torch.Tensor) -> torch.Tensor:
        """Return the largest difference `()` to what the pipeline computed, relative to its largest element."""
        difference = (self(outputs, model_output.shape[1]).float() - model_output.float()).abs().max()
        return difference / model_output.float().abs().max()

    def error(self, outputs: Sequence[torch.Tensor], model_output: torch.Tensor) -> float:
        """Return [`relative_error`](Guidance.relative_error) as a number."""
        return float(self.relative_error(outputs, model_output))


def infer_guidance(
    tiers: Sequence[Sequence[GuidanceSpec]],
    outputs: Sequence[torch.Tensor],
    model_output: torch.Tensor,
    arguments: Mapping[str, Any],
) -> Guidance:
    """
    Find the rule that turns the denoiser's outputs into the prediction that the pipeline gave to its scheduler.

    Args:
        tiers (`Sequence[Sequence[GuidanceSpec]]`):
            Candidates; those of a later tier count only if none of the tiers before fits.
        outputs (`Sequence[torch.Tensor]`, each of shape `(B, ...)`):
            The denoiser's outputs at one step, in the order of the calls.
        model_output (`torch.Tensor` of shape `(B, ...)`):
            The prediction that the pipeline computed from them.
        arguments (`Mapping[str, Any]`):
            Arguments of the pipeline's call, among them the scale.

    Raises:
        [`GuidanceError`]: no candidate reproduces `model_output` within 1e-5, or several that differ elsewhere do.
    """
    tried: list[tuple[float, Guidance]] = []
    for rules in tiers:
        errors = [
            (_try(candidate, outputs, model_output), candidate)
            for candidate in _candidates(rules, len(outputs), arguments)
        ]
        fitting = [(error, candidate) for error, candidate in errors if error <= TOLERANCE]
        if fitting:
            chosen = min(fitting, key=_error)[1]  # the plainest of equals
            _refuse_ambiguity(chosen, [candidate for _, candidate in fitting], outputs, model_output)
            return chosen
        tried += errors
    raise _unexplained([rule for rules in tiers for rule in rules], tried, len(outputs))


def _candidates(rules: Sequence[GuidanceSpec], num_outputs: int, arguments: Mapping[str, Any]) -> list[Guidance]:
    """Return all rules with all conventions, the plainest first."""
    usable = [spec for spec in rules if spec.num_outputs in (None, num_outputs)]
    scales = [
        arguments[key] for key in ("true_cfg_scale", "guidance_scale") if isinstance(arguments.get(key), int | float)
    ]
    conventions = itertools.product(usable, dict.fromkeys(scales or [1.0]), (1, -1), (False, True), (False, True))
    return [
        Guidance(spec.name, spec.rule, scale, cond_first, sign, in_float32, arguments)
        for spec, scale, sign, cond_first, in_float32 in conventions
    ]


def _try(candidate: Guidance, outputs: Sequence[torch.Tensor], model_output: torch.Tensor) -> float:
    """Return the candidate's error. A rule is foreign code, and may do anything."""
    try:
        with unchanged_settings():
            prediction = candidate(outputs, model_output.shape[1])
    except ChangedSettingError as error:
        raise GuidanceError(f"The guidance rule {candidate.name!r} {error}") from error
    except (Exception, SystemExit) as error:
        raise GuidanceError(
            f"The guidance rule {candidate.name!r} failed with {describe(error)}. It was called with "
            f"{len(outputs)} output(s) {_shapes(outputs)} and guidance_scale={candidate.scale}. "
            f"{how_to_pass_a_rule(len(outputs))}"
        ) from error
    if prediction.shape != model_output.shape:
        raise GuidanceError(
            f"The guidance rule {candidate.name!r} returned a prediction {tuple(prediction.shape)} from {len(outputs)} "
            f"output(s) {_shapes(outputs)}; the pipeline's is {tuple(model_output.shape)}. {how_to_pass_a_rule(len(outputs))}"
        )
    return candidate.error(outputs, model_output)


def _unexplained(
    rules: Sequence[GuidanceSpec], tried: Sequence[tuple[float, Guidance]], num_outputs: int
) -> GuidanceError:
    if not tried:
        wanted = ", ".join(f"{spec.name}: {spec.num_outputs}" for spec in rules)
        return GuidanceError(
            f"The pipeline makes {num_outputs} denoiser output(s) a step, for which there is no guidance rule ({wanted}). "
            f"{how_to_pass_a_rule(num_outputs)}"
        )
    error, best = min(tried, key=_error)
    names = dict.fromkeys(candidate.name for _, candidate in tried)
    return GuidanceError(
        f"No guidance rule of {', '.join(names)} explains the predictions of this pipeline ({num_outputs} denoiser output(s) "
        f"a step; the best, {best.name}, has a relative error of {error:.0e}, allowed {TOLERANCE:.0e}). "
        f"{how_to_pass_a_rule(num_outputs)}"
    )


def _error(tried: tuple[float, Guidance]) -> float:
    return tried[0]


def _shapes(outputs: Sequence[torch.Tensor]) -> str:
    return ", ".join(str(tuple(output.shape)) for output in outputs)


def _refuse_ambiguity(
    chosen: Guidance, fitting: Sequence[Guidance], outputs: Sequence[torch.Tensor], model_output: torch.Tensor
) -> None:
    """Check that fitting rules also agree on random outputs: on these they may agree by chance (equal branches)."""
    generator = torch.Generator().manual_seed(0)
    probe = [torch.randn(output.shape, generator=generator).to(output) for output in outputs]
    expected = chosen(probe, model_output.shape[1])
    differing = {other.name for other in fitting if other.error(probe, expected) > 1e-2}
    if differing:
        raise GuidanceError(
            f"Several guidance rules explain the predictions of this pipeline ({chosen.name} and {', '.join(sorted(differing))}, "
            "some by the order or sign of their branches), because the prompt does not change them. Pass `guidance=` the "
            "name of the right one, or check the model."
        )
