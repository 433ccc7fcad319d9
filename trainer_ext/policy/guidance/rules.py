"""
The guidance rules that pipelines of diffusers are known to use, as formulas.

Each takes the denoiser's outputs of a step, the conditional one first, the guidance scale, and the arguments of the
pipeline's call. Order, sign and precision are inferred separately. Imports no torch, so that listing the rules is instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddpo_plugins import GuidanceSpec

if TYPE_CHECKING:
    import torch


def no_guidance(outputs: tuple[torch.Tensor, ...], guidance_scale: float, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Return the only output."""
    (output,) = outputs
    return output


def cfg(outputs: tuple[torch.Tensor, ...], guidance_scale: float, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Classifier-free guidance (Ho & Salimans, 2021, eq. 6) in diffusers' convention, where scale 1 is no guidance."""
    cond, uncond = outputs
    return uncond + guidance_scale * (cond - uncond)


def cfg_from_cond(
    outputs: tuple[torch.Tensor, ...], guidance_scale: float, arguments: Mapping[str, Any]
) -> torch.Tensor:
    """Classifier-free guidance in the paper's convention, where scale 0 is no guidance."""
    cond, uncond = outputs
    return cond + guidance_scale * (cond - uncond)


def cfg_summed(outputs: tuple[torch.Tensor, ...], guidance_scale: float, arguments: Mapping[str, Any]) -> torch.Tensor:
    """The paper's own order of operations (Ho & Salimans, 2021, eq. 6), which rounds differently (Kandinsky 3)."""
    cond, uncond = outputs
    return (guidance_scale + 1) * cond - guidance_scale * uncond


def cfg_rescaled(
    outputs: tuple[torch.Tensor, ...], guidance_scale: float, arguments: Mapping[str, Any]
) -> torch.Tensor:
    """Guidance with its standard deviation pulled back to the conditional one's (Lin et al., 2023, section 3.4)."""
    cond, _ = outputs
    guided = cfg(outputs, guidance_scale, arguments)
    dims = list(range(1, cond.dim()))
    rescaled = guided * (cond.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True))
    weight = arguments.get("guidance_rescale") or 0.0
    return weight * rescaled + (1 - weight) * guided


def cfg_renormed(
    outputs: tuple[torch.Tensor, ...], guidance_scale: float, arguments: Mapping[str, Any]
) -> torch.Tensor:
    """Guidance scaled back to the conditional output's norm over the last dimension (Qwen-Image, Lumina 2)."""
    cond, _ = outputs
    guided = cfg(outputs, guidance_scale, arguments)
    return guided * (cond.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))


GUIDANCE_RULES: dict[str, GuidanceSpec] = {
    spec.name: spec
    for spec in (
        GuidanceSpec("none", no_guidance, "The denoiser's only output, unchanged.", num_outputs=1),
        GuidanceSpec("cfg", cfg, "Classifier-free guidance; scale 1 is no guidance."),
        GuidanceSpec("cfg_from_cond", cfg_from_cond, "Classifier-free guidance; scale 0 is no guidance."),
        GuidanceSpec("cfg_summed", cfg_summed, "cfg_from_cond in the paper's order of operations, to the last bit."),
        GuidanceSpec("cfg_rescaled", cfg_rescaled, "cfg, with `guidance_rescale` towards the conditional std."),
        GuidanceSpec("cfg_renormed", cfg_renormed, "cfg, with the conditional output's norm over the last dimension."),
    )
}
