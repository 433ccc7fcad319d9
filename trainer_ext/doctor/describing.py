"""Facts that describe a pipeline, its policy and what they recorded, without sampling or training."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LoraBaseMixin

from ..errors import PipelineError
from ..learning.algorithm import Algorithm
from ..model.denoiser import TrainedDenoiser
from ..policy.pipeline import LogProbPipeline
from ..policy.recording.trajectory import Trajectory
from ..policy.runner import find_denoiser
from .facts import CallFacts, DenoiserFacts, GuidanceFacts, PipelineFacts, SamplerFacts, SolverFacts
from .report import Facts
from .training_facts import AdapterFacts


def pipeline_facts(pipeline: DiffusionPipeline) -> PipelineFacts:
    """Describe a pipeline."""
    taken = inspect.signature(type(pipeline).__call__).parameters.get("num_inference_steps")
    steps = taken.default if taken is not None and isinstance(taken.default, int) else None
    parts = tuple(pipeline.components)
    return PipelineFacts(type(pipeline).__name__, type(pipeline.scheduler).__name__, parts, steps)


def denoiser_facts(pipeline: DiffusionPipeline) -> DenoiserFacts:
    """Describe its denoiser."""
    name = find_denoiser(pipeline)
    denoiser = pipeline.components[name]
    parameters = list(denoiser.parameters())
    size = sum(parameter.numel() for parameter in parameters)
    return DenoiserFacts(name, type(denoiser).__name__, size, str(parameters[0].dtype).removeprefix("torch."))


def policy_facts(policy: LogProbPipeline, algorithm: Algorithm[Any, Any]) -> Iterator[Facts]:
    """Describe sampler and guidance.

    Raises:
        [`PipelineError`]: no step has noise, and the algorithm needs log-probabilities.
    """
    table, guidance = policy.table, policy.findings.guidance
    steps = table.stochastic_steps
    if len(steps):
        weights = table.output_coef[steps].abs() / table.std[steps]
        heaviest = int(steps[weights.argmax()])
        noisy = tuple(steps.tolist())
        yield SamplerFacts(policy.sampler, table.num_steps, noisy, float(weights.max()), heaviest)
    elif algorithm.policy_gradient:
        raise PipelineError("No step of this schedule has noise, so there is nothing to train. Use more steps.")
    else:
        yield SolverFacts(policy.sampler, table.num_steps)
    outputs = sum(layout.copies for layout in policy.findings.layouts)
    error = policy.findings.error
    yield GuidanceFacts(guidance.name, guidance.scale, outputs, guidance.cond_first, guidance.sign, error)


def adapter_facts(pipeline: DiffusionPipeline, denoiser: TrainedDenoiser) -> AdapterFacts:
    """Describe the trained weights and the files that saving writes."""
    trained = {name: value for name, value in denoiser.named_parameters() if value.requires_grad}
    size = sum(value.numel() for value in trained.values())
    if denoiser.peft_config is None:
        return AdapterFacts((), 0, size, ("model_index.json",), f"{type(pipeline).__name__}.from_pretrained")
    with tempfile.TemporaryDirectory() as folder:
        denoiser.save(Path(folder), pipeline)
        denoiser.load(Path(folder))
        files = tuple(sorted(path.name for path in Path(folder).iterdir() if path.suffix == ".safetensors"))
    layers = sum("lora_A" in name for name in trained)
    targets = denoiser.peft_config.target_modules
    names = (targets,) if isinstance(targets, str) else tuple(sorted(targets))
    by = "load_lora_weights" if isinstance(pipeline, LoraBaseMixin) else "PeftModel.from_pretrained"
    return AdapterFacts(names, layers, size, files, by)


def call_facts(policy: LogProbPipeline, trajectory: Trajectory) -> Iterator[CallFacts]:
    """Describe each call of the denoiser in a denoising step."""
    for layout, call in zip(policy.findings.layouts, trajectory.conditioning.groups[0], strict=True):
        lists = tuple(name for name, value in call.per_image.items() if isinstance(value, list))
        yield CallFacts(
            layout.latents_name,
            layout.time_name,
            tuple(layout.row_shape),
            layout.copies,
            tuple(sorted(call.per_image)),
            lists + ((layout.latents_name,) if layout.is_list else ()),
            tuple(name for name, value in call.shared.items() if value is not None),
            str(layout.dtype).removeprefix("torch."),
        )
