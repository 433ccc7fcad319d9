"""A look at a pipeline before anything is done with it: states in which training would be wrong, or fail only later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, DiffusionPipeline
from diffusers.models.attention_processor import Attention
from peft import PeftMixedModel, PeftModel

from ..errors import PipelineError
from ..policy.runner import DENOISER_NAMES, find_denoiser
from .ownership import adapter_layers, has_learned, is_claimed, remove_adapter, ways_out
from .quantization import described_quantization

GRADIENTS_OFF = (
    "Gradients are off (torch.set_grad_enabled(False), torch.no_grad() or torch.inference_mode()), and training needs them. "
    "Turn them on with torch.set_grad_enabled(True), or leave the block."
)


@dataclass(frozen=True)
class Inspected:
    """
    A pipeline that is to be trained.

    Parameters:
        pipeline (`DiffusionPipeline`):
            The pipeline.
        name (`str`):
            Name of its denoiser.
        full_finetuning (`bool`):
            Whether all weights of the denoiser will be trained.
    """

    pipeline: DiffusionPipeline
    name: str
    full_finetuning: bool

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """The components that are networks, by name."""
        return {name: part for name, part in self.pipeline.components.items() if isinstance(part, torch.nn.Module)}

    @property
    def denoiser(self) -> torch.nn.Module:
        """The denoiser."""
        return self.modules[self.name]

    @property
    def configuration(self) -> Mapping[str, Any]:
        """The denoiser's configuration, if it is one of diffusers' models."""
        return self.denoiser.config if isinstance(self.denoiser, ConfigMixin) else {}


def check_pipeline(pipeline: DiffusionPipeline, full_finetuning: bool) -> None:
    """
    Refuse a pipeline in a state in which it cannot be trained, and take off an earlier trainer's adapter that learned nothing.

    Raises:
        [`PipelineError`]: the first state that was found, and the call that ends it.
    """
    inspected = Inspected(pipeline, find_denoiser(pipeline), full_finetuning)
    denoiser = inspected.denoiser
    if is_claimed(denoiser) and any(adapter_layers(denoiser)) and not has_learned(denoiser):
        remove_adapter(denoiser)  # of a trainer that never trained: nothing is lost
    found = next(findings(inspected), None)
    if found is not None:
        raise PipelineError(found)


def findings(inspected: Inspected) -> Iterator[str]:
    """Yield a sentence for each state in which the pipeline cannot be trained: what was found, and the way out."""
    return (sentence for look in LOOKS for sentence in look(inspected))


def gradients_off(inspected: Inspected) -> Iterator[str]:
    """Find gradients that are turned off everywhere, and weights that can have none."""
    if not torch.is_grad_enabled():
        yield GRADIENTS_OFF
    if any(value.is_inference() for value in inspected.denoiser.parameters()):
        yield (
            f"The weights of pipeline.{inspected.name} were made inside torch.inference_mode() and can have no gradient. Load "
            "the pipeline outside of it."
        )


def several_denoisers(inspected: Inspected) -> Iterator[str]:
    """Find a second denoiser, which would sample some of the steps without being trained."""
    alike = [name for name, part in inspected.modules.items() if type(part) is type(inspected.denoiser)]
    both = [name for name in inspected.modules if name in DENOISER_NAMES or name in alike]
    if len(both) > 1:
        yield (
            f"{type(inspected.pipeline).__name__} has several denoisers ({', '.join(both)}); DDPO trains one that takes every "
            "step. Use a pipeline with one of them."
        )


def wrapped(inspected: Inspected) -> Iterator[str]:
    """Find a denoiser inside of something else: a compiler's, PEFT's or torch's own wrapper."""
    place, denoiser = f"pipeline.{inspected.name}", inspected.denoiser
    inner = [name for name, _ in denoiser.named_children()]
    kind = type(denoiser).__name__
    if inner == ["_orig_mod"] or any(part._compiled_call_impl is not None for part in denoiser.modules()):
        undone = f"{place} = {place}._orig_mod" if inner == ["_orig_mod"] else "load it again without compile()"
        yield (
            f"{place} is compiled, and an adapter cannot be added to compiled code: {undone}. For compiled training set "
            "torch_compile=True."
        )
    elif isinstance(denoiser, PeftModel | PeftMixedModel):
        yield (
            f"{place} is a {kind} of PEFT, and the trainer adds its own adapter: {place} = {place}.unload() drops the adapter, "
            f"{place} = {place}.merge_and_unload() keeps it. Then pass peft_config to DDPOTrainer."
        )
    elif inner == ["module"]:
        yield f"{place} is a {kind}; the trainer wraps the denoiser itself: {place} = {place}.module."


def fused_projections(inspected: Inspected) -> Iterator[str]:
    """Find attention whose projections are computed as one, so that an adapter on each of them would have no effect."""
    for module in inspected.denoiser.modules():
        own = vars(module)
        # `Attention` keeps its mark when it is unfused, but not its processor.
        stale = isinstance(module, Attention) and not type(own.get("processor")).__name__.startswith("Fused")
        if own.get("fused_projections") and not stale:
            yield (
                f"pipeline.{inspected.name} has fused attention projections (fuse_qkv_projections()), and what is trained in "
                f"to_q, to_k and to_v would have no effect. Call pipeline.{inspected.name}.unfuse_qkv_projections()."
            )


def adapters(inspected: Inspected) -> Iterator[str]:
    """Find adapter layers in any component: a loaded LoRA, a fused one, or that of an earlier trainer."""
    for name, part in inspected.modules.items():
        layers = list(adapter_layers(part))
        if not layers:
            continue
        kept, dropped = ways_out(inspected.pipeline, name)
        if any(layer.merged for layer in layers):
            yield (
                f"pipeline.{name} has a fused LoRA whose layers are still there. Call {dropped}: what is fused stays in the "
                "weights, and training begins from it."
            )
        elif is_claimed(part):
            yield (
                f"pipeline.{name} has the trained adapter of an earlier DDPOTrainer. Save it first (save_model()). Then call "
                f"{dropped} to begin from the base model again, or to resume, or {kept} to train on top of it."
            )
        else:
            yield (
                f"pipeline.{name} has a loaded LoRA, and the adapter that is trained would take its place. Call {kept} to train "
                f"on top of it, or {dropped} to train without it."
            )


def moved_weights(inspected: Inspected) -> Iterator[str]:
    """Find weights that are moved, cast or left out while the pipeline runs."""
    if inspected.pipeline.hf_device_map is not None:
        yield "The pipeline has a device_map, and the trainer places it itself. Call pipeline.reset_device_map()."
    for name, part in inspected.modules.items():
        modules = [vars(module) for module in part.modules()]
        hooks = [hook for own in modules if "_diffusers_hook" in own for hook in own["_diffusers_hook"].hooks]
        if any("_hf_hook" in own for own in modules):
            yield (
                f"pipeline.{name} is offloaded, or was placed by a device_map: its weights are moved while it runs, and the "
                "trainer places them itself. Call pipeline.remove_all_hooks(), or load the pipeline again without."
            )
        elif hooks and (name == inspected.name or any("offload" in hook for hook in hooks)):
            yield (
                f"pipeline.{name} has the hook {hooks[0]!r} of diffusers, through which steps cannot be replayed with gradients. "
                "Load the pipeline again without enable_layerwise_casting() (bfloat16 instead), enable_group_offload() or "
                "enable_cache()."
            )
        elif any(value.is_meta for value in part.parameters()):
            yield f"pipeline.{name} has weights on the meta device: they were never loaded. Load the pipeline again."


def precision(inspected: Inspected) -> Iterator[str]:
    """Find weights in which an update would be lost by rounding, or which cannot be computed with."""
    kinds = {value.dtype for value in inspected.denoiser.parameters()}
    name, several = f"pipeline.{inspected.name}", ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    if any(kind.is_floating_point and kind.itemsize < 2 for kind in kinds):
        yield f"{name} has weights in {several}, which have no gradient. Load it in bfloat16 or float32."
    elif inspected.full_finetuning and not kinds <= {torch.float32, torch.float64}:
        yield (
            f"full_finetuning trains weights in float32, and those of {name} are in {several}: most updates would be lost by "
            "rounding. Call pipeline.to(torch.float32), and set bf16=True for speed; or train an adapter."
        )


def quantised(inspected: Inspected) -> Iterator[str]:
    """Find quantised weights that would be trained themselves: updates would be lost, and no error would say so."""
    found = described_quantization(inspected.configuration)
    if inspected.full_finetuning and found:
        yield (
            f"pipeline.{inspected.name} is quantised ({found.get('quant_method', 'by a method that has no name')}), and "
            "full_finetuning trains all weights, of which quantised ones have no right gradient. Train an adapter, or load the "
            "pipeline without quantization_config."
        )


LOOKS: tuple[Callable[[Inspected], Iterator[str]], ...] = (
    gradients_off,
    several_denoisers,
    wrapped,
    fused_projections,
    adapters,
    moved_weights,
    quantised,
    precision,
)
