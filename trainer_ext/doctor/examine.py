"""Finds out whether a pipeline can be trained, by the policy's own functions: what `ddpo doctor` prints."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LoraBaseMixin
from peft import LoraConfig

from ddpo_plugins import GuidanceSpec
from ddpo_plugins.errors import DDPOError

from ..config import DDPOConfig
from ..errors import PipelineError
from ..learning.algorithm import Algorithm
from ..loop.metrics import timed
from ..model.build import build_denoiser, build_policy
from ..model.denoiser import TrainedDenoiser
from ..model.handover import give_back
from ..model.loading import open_pipeline
from ..model.ownership import remove_adapter
from ..policy.pipeline import LogProbPipeline, Sampled
from ..policy.recording.trajectory import Trajectory
from ..policy.runner import find_denoiser
from ..policy.seeds import image_generators
from ..policy.self_check import Replayed, check_gradients_arrive, check_replay
from .activations import SavedTensors
from .cost import measured_shapes, mixed_steps, peak_bytes
from .estimate import estimate
from .facts import CallFacts, DenoiserFacts, GuidanceFacts, PipelineFacts, SamplerFacts, SolverFacts
from .report import Facts, Report
from .training_facts import AdapterFacts, CostFacts, GradientFacts, ReplayFacts

PROMPTS = ("a cat", "a dog riding a bike")

# LoRA starts at B = 0, where the gradient of A is 0. With random B, the gradients of both can be examined.
RANDOMISED_STD = 0.01


def examine(
    model: str | Path | DiffusionPipeline,
    args: DDPOConfig,
    peft_config: LoraConfig | None = None,
    guidance_rules: Sequence[GuidanceSpec] = (),
    on_found: Callable[[Facts], None] = lambda facts: None,
    on_step: Callable[[int], None] = lambda step: None,
) -> Report:
    """
    Sample two images as training would, take one gradient, and report the findings.

    Args:
        model (`str`, `Path` or `DiffusionPipeline`):
            The model, as in [`DDPOTrainer`]. A pipeline that is already loaded is given back as it came.
        args ([`DDPOConfig`]):
            Options of the planned training.
        peft_config (`LoraConfig`, *optional*), guidance_rules (`Sequence[GuidanceSpec]`, *optional*):
            The adapter and the plugins' guidance rules, as in [`DDPOTrainer`].
        on_found (`Callable[[Facts], None]`, *optional*):
            Called with each part of the report as soon as it is known.
        on_step (`Callable[[int], None]`, *optional*):
            Called after each denoising step with its index.

    Raises:
        [`PipelineError`]: nothing could be loaded. Reasons that speak against training are in the report instead.
    """
    pipeline = open_pipeline(model, args.weights_dtype, args.quantization)
    facts: list[Facts] = []
    try:
        for found in _parts(pipeline, args, peft_config, guidance_rules, on_step):
            facts.append(found)
            on_found(found)
    except DDPOError as refusal:
        return Report(tuple(facts), str(refusal))
    finally:
        give_back(pipeline)
    return Report(tuple(facts), None)


def _parts(
    pipeline: DiffusionPipeline,
    args: DDPOConfig,
    peft_config: LoraConfig | None,
    guidance_rules: Sequence[GuidanceSpec],
    on_step: Callable[[int], None],
) -> Iterator[Facts]:
    yield PipelineFacts(type(pipeline).__name__, type(pipeline.scheduler).__name__, tuple(pipeline.components))
    yield _denoiser_facts(pipeline)
    algorithm = args.resolve_algorithm(None)
    policy = build_policy(pipeline, args, guidance_rules=guidance_rules, sampler=algorithm.sampler)
    yield from _policy_facts(policy, algorithm)
    denoiser = build_denoiser(policy, args, peft_config)
    try:
        yield from _training_facts(policy, denoiser, args, on_step)
    finally:
        remove_adapter(policy.denoiser)


def _training_facts(
    policy: LogProbPipeline, denoiser: TrainedDenoiser, args: DDPOConfig, on_step: Callable[[int], None]
) -> Iterator[Facts]:
    yield _adapter_facts(policy.pipeline, denoiser)
    model = Accelerator(cpu=args.use_cpu, mixed_precision=_precision(args)).prepare_model(denoiser).eval()
    seconds: dict[str, float] = {}
    with timed(seconds, "sampling"):
        sampled = _sample(policy, model, on_step)
    yield from _call_facts(policy, sampled.trajectory)
    yield _replay_facts(policy, model, sampled, args.clip_range)
    _randomise_lora(denoiser)
    rows, steps = mixed_steps(sampled.trajectory)
    saved = SavedTensors(denoiser)
    with timed(seconds, "training"), saved.counting():
        _train(policy, model, sampled.trajectory, rows, steps)
    yield _gradient_facts(denoiser)
    each = (seconds["sampling"] / len(PROMPTS), seconds["training"] / len(rows))
    yield CostFacts(str(args.device), *each, peak_bytes(args.device))
    passed = len(rows) * policy.num_branches
    yield estimate(args, measured_shapes(policy, denoiser, args, sampled.trajectory, saved.num_bytes // passed, each))


def _denoiser_facts(pipeline: DiffusionPipeline) -> DenoiserFacts:
    name = find_denoiser(pipeline)
    denoiser = pipeline.components[name]
    parameters = list(denoiser.parameters())
    size = sum(parameter.numel() for parameter in parameters)
    return DenoiserFacts(name, type(denoiser).__name__, size, str(parameters[0].dtype).removeprefix("torch."))


def _policy_facts(policy: LogProbPipeline, algorithm: Algorithm[Any, Any]) -> Iterator[Facts]:
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


def _adapter_facts(pipeline: DiffusionPipeline, denoiser: TrainedDenoiser) -> AdapterFacts:
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


def _sample(policy: LogProbPipeline, model: torch.nn.Module, on_step: Callable[[int], None]) -> Sampled:
    try:
        return policy.sample(PROMPTS, image_generators(range(len(PROMPTS))), denoiser=model, on_step=on_step)
    except DDPOError:
        raise
    except Exception as error:  # any error of a pipeline that we do not know, after a first step that went well
        raise PipelineError(
            f"{type(policy.pipeline).__name__} failed while it made {len(PROMPTS)} images: {type(error).__name__}: {error}. "
            "Does it work by itself, with these pipeline_kwargs, several prompts and one generator for each?"
        ) from error


def _call_facts(policy: LogProbPipeline, trajectory: Trajectory) -> Iterator[CallFacts]:
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


def _replay_facts(policy: LogProbPipeline, model: torch.nn.Module, sampled: Sampled, clip_range: float) -> ReplayFacts:
    with torch.no_grad():
        same = Replayed.as_sampled(sampled.trajectory).deviations(policy, model)
        mixed = Replayed(sampled.trajectory, *mixed_steps(sampled.trajectory)).deviations(policy, model)
    check_replay(policy, model, sampled.trajectory, clip_range)
    shape = tuple(sampled.images.shape[1:])
    return ReplayFacts(policy.findings.repeats_prompts, shape, *(float(x.expm1().abs().max()) for x in (same, mixed)))


@torch.no_grad()
def _randomise_lora(denoiser: TrainedDenoiser) -> None:
    for name, parameter in denoiser.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=RANDOMISED_STD)


def _train(
    policy: LogProbPipeline, model: torch.nn.Module, trajectory: Trajectory, rows: torch.Tensor, steps: torch.Tensor
) -> None:
    deviations = Replayed(trajectory, rows, steps).deviations(policy, model)
    if deviations.requires_grad:
        deviations.sum().backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _gradient_facts(denoiser: TrainedDenoiser) -> GradientFacts:
    trained = {name: value for name, value in denoiser.named_parameters() if value.requires_grad}
    without = tuple(name for name, value in trained.items() if value.grad is None or not value.grad.any())
    check_gradients_arrive(value.grad for value in trained.values())
    endless = [name for name, value in trained.items() if value.grad is not None and not value.grad.isfinite().all()]
    if endless:
        raise PipelineError(
            f"The gradient of {len(endless)} of {len(trained)} trained tensors is not finite (first {endless[0]}). In half "
            "precision, try bf16 or float32."
        )
    return GradientFacts(len(trained), without)


def _precision(args: DDPOConfig) -> str:
    return "bf16" if args.bf16 else "fp16" if args.fp16 else "no"
