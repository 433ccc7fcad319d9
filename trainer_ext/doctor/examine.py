"""Finds out whether a pipeline can be trained, by the policy's own functions: what `ddpo doctor` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import cycle, islice
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from peft import LoraConfig

from ddpo_plugins import GuidanceSpec
from ddpo_plugins.errors import DDPOError

from ..config import DDPOConfig
from ..errors import PipelineError
from ..loop.metrics import timed
from ..model.build import build_denoiser, build_policy
from ..model.denoiser import TrainedDenoiser
from ..model.handover import give_back
from ..model.loading import open_pipeline
from ..model.ownership import remove_adapter
from ..options import clip_range_of
from ..policy.deviations import Replayed
from ..policy.pipeline import LogProbPipeline
from ..policy.record import Sampled
from ..policy.recording.trajectory import Trajectory
from ..policy.seeds import image_generators
from ..policy.self_check import check_gradients_arrive, check_replay
from .activations import SavedTensors, checkpointing
from .cost import Effort, measured_shapes, mixed_steps, peak_bytes, update_seconds
from .describing import adapter_facts, call_facts, denoiser_facts, pipeline_facts, policy_facts
from .estimate import estimate
from .report import Facts, Report
from .training_facts import CostFacts, GradientFacts, ReplayFacts

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
    as_run: bool = False,
    on_images: Callable[[torch.Tensor], None] = lambda images: None,
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
        as_run (`bool`, *optional*, defaults to `False`):
            Sample and train as many images and steps at once as the run will, instead of the fewest that show what is wrong, so
            that time and memory are those of the run; and make an update.
        on_images (`Callable[[torch.Tensor], None]`, *optional*):
            Called with the images `(B, H, W, 3)`, uint8, that were sampled.

    Raises:
        [`PipelineError`]: nothing could be loaded. Reasons that speak against training are in the report instead.
    """
    pipeline = open_pipeline(model, args.weights_dtype, args.quantization)
    facts: list[Facts] = []
    try:
        for found in _parts(pipeline, args, peft_config, guidance_rules, on_step, as_run, on_images):
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
    as_run: bool,
    on_images: Callable[[torch.Tensor], None],
) -> Iterator[Facts]:
    yield pipeline_facts(pipeline)
    yield denoiser_facts(pipeline)
    algorithm = args.resolve_algorithm(None)
    policy = build_policy(pipeline, args, guidance_rules=guidance_rules, sampler=algorithm.sampler)
    yield from policy_facts(policy, algorithm)
    denoiser = build_denoiser(policy, args, peft_config)
    try:
        effort = Effort.of_run(args, policy.num_branches) if as_run else Effort()
        yield from _training_facts(policy, denoiser, args, on_step, effort, on_images)
    finally:
        remove_adapter(policy.denoiser)


def _training_facts(
    policy: LogProbPipeline,
    denoiser: TrainedDenoiser,
    args: DDPOConfig,
    on_step: Callable[[int], None],
    effort: Effort,
    on_images: Callable[[torch.Tensor], None],
) -> Iterator[Facts]:
    yield adapter_facts(policy.pipeline, denoiser)
    model = Accelerator(cpu=args.use_cpu, mixed_precision=_precision(args)).prepare_model(denoiser).eval()
    seconds: dict[str, float] = {}
    with timed(seconds, "sampling"):
        sampled = _sample(policy, model, on_step, effort.num_images)
    on_images(sampled.images)
    yield from call_facts(policy, sampled.trajectory)
    yield _replay_facts(policy, model, sampled, clip_range_of(args.algorithm, args.clip_range))
    _randomise_lora(denoiser)
    rows, steps = mixed_steps(sampled.trajectory, effort.num_pairs)
    saved = SavedTensors(denoiser)
    with checkpointing(denoiser) if args.recomputes_activations else nullcontext():
        for _ in range(effort.warm_ups):
            _train(policy, model, sampled.trajectory, rows, steps)
        with timed(seconds, "training"), saved.counting():
            _train(policy, model, sampled.trajectory, rows, steps)
    yield _gradient_facts(denoiser)
    each = (seconds["sampling"] / effort.num_images, seconds["training"] / len(rows))
    update = update_seconds(denoiser, args) if effort.warm_ups else 0.0
    yield CostFacts(str(args.device), *each, peak_bytes(args.device), update)
    passed = len(rows) * policy.num_branches
    yield estimate(args, measured_shapes(policy, denoiser, args, sampled.trajectory, saved.num_bytes // passed, each))


def _sample(
    policy: LogProbPipeline, model: torch.nn.Module, on_step: Callable[[int], None], num_images: int
) -> Sampled:
    prompts = list(islice(cycle(PROMPTS), num_images))
    try:
        return policy.sample(prompts, image_generators(range(num_images)), denoiser=model, on_step=on_step)
    except DDPOError:
        raise
    except Exception as error:  # any error of a pipeline that we do not know, after a first step that went well
        raise PipelineError(
            f"{type(policy.pipeline).__name__} failed while it made {num_images} images: {type(error).__name__}: {error}. "
            "Does it work by itself, with these pipeline_kwargs, several prompts and one generator for each?"
        ) from error


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
