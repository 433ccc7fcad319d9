"""Any diffusers text-to-image pipeline as a policy: records its denoising steps, and replays them with gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ddpo_plugins import GuidanceSpec

from ..options import DDPOOptions
from .dry_run import dry_run
from .guidance.candidates import GuidanceRule, candidate_rules, resolve_rule
from .record import Sampled, prompt_arguments, run_recorded
from .recording.conditioning import Conditioning
from .recording.scheduler import Transition
from .recording.trajectory import Trajectory
from .replay import ratios_to_record, replayed_predictions
from .runner import Denoiser, Runner, check_call, check_not_owned
from .transfer import to_device
from .transitions.gaussian import RatioTerms, TransitionTable
from .transitions.noising import NoisingTable
from .transitions.samplers import SamplerOptions, choose_sampler


class LogProbPipeline:
    """
    A pipeline whose denoising steps have log-probabilities. The pipeline itself runs unchanged.

    For a rollout, two attributes of the pipeline are swapped: the scheduler, for one that samples from Gaussians and
    reports them (with the sampler `"own"`, for one like the pipeline's that only reports), and the denoiser, for one that
    records its calls. Which arguments belong to single images and which rule combines guided predictions is inferred by a
    dry run, and the rule is verified at every step.

    Args:
        pipeline (`DiffusionPipeline`):
            A text-to-image pipeline with a `unet` or `transformer`.
        num_inference_steps (`int`, *optional*, defaults to 50):
            T.
        guidance_scale (`float`, *optional*, defaults to 5.0):
            Guidance scale in the pipeline's own convention. `None` leaves it to the pipeline, which may have no such argument.
        eta (`float`, *optional*, defaults to 1.0):
            Weight of DDIM's noise, in [0, 1]; with 0 no step has a log-probability.
        guidance (`str`, `GuidanceRule` or `GuidanceSpec`, *optional*):
            Name of a rule, or a function `rule(outputs, guidance_scale, arguments)`; see [`GuidanceSpec`]. Inferred by
            default.
        pipeline_kwargs (`Mapping[str, Any]`, *optional*):
            Additional arguments for every call of the pipeline (`negative_prompt`, `height`, ...).
        sampler (`str`, *optional*), noise_level (`float`, *optional*), sde_window (`Sequence[int]`, *optional*):
            Options of sampling, as in [`SamplerOptions`].
        guidance_rules (`Sequence[GuidanceSpec]`, *optional*):
            Rules that plugins offer. Those for this pipeline's class are tried first; others can be chosen by name.

    Raises:
        [`PipelineError`]: the pipeline cannot be recorded; the message says why.
        [`GuidanceError`]: its guidance rule cannot be inferred.
        [`ConfigError`]: an option of sampling that no sampler allows, or that is for others.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        num_inference_steps: int = DDPOOptions.num_inference_steps,
        guidance_scale: float | None = DDPOOptions.guidance_scale,
        eta: float = DDPOOptions.eta,
        guidance: str | GuidanceRule | GuidanceSpec | None = None,
        pipeline_kwargs: Mapping[str, Any] | None = None,
        sampler: str | None = None,
        noise_level: float = DDPOOptions.noise_level,
        sde_window: Sequence[int] | None = None,
        guidance_rules: Sequence[GuidanceSpec] = (),
    ):
        sampling = SamplerOptions(sampler, eta, noise_level, sde_window)
        sampling.check_window(num_inference_steps)
        check_not_owned(pipeline_kwargs or {})
        rules = candidate_rules(resolve_rule(guidance, guidance_rules), guidance_rules, type(pipeline))
        scale = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
        call_kwargs = {"num_inference_steps": num_inference_steps, **scale, **(pipeline_kwargs or {})}
        check_call(pipeline, call_kwargs)
        self.runner = Runner(pipeline, choose_sampler(pipeline.scheduler, sampling), call_kwargs)
        self.findings = dry_run(self.runner, rules)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.runner.call_kwargs.items())
        return f"{type(self).__name__}({type(self.pipeline).__name__}, sampler={self.sampler!r}, {given})"

    @property
    def pipeline(self) -> DiffusionPipeline:
        """The pipeline that runs."""
        return self.runner.pipeline

    @property
    def denoiser_name(self) -> str:
        """Name of the component that is trained: `"unet"` or `"transformer"`."""
        return self.runner.denoiser_name

    @property
    def sampler(self) -> str:
        """Name of the sampler: the one that was asked for, or that of the scheduler's family."""
        return self.runner.sampler.name

    @property
    def table(self) -> TransitionTable:
        """The T denoising steps."""
        return self.findings.table

    @property
    def denoiser(self) -> torch.nn.Module:
        """The pipeline's own denoiser."""
        return self.runner.denoiser

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes. `pipeline.device` looks for it in all modules of a pipeline, each time."""
        return next(self.denoiser.parameters()).device

    @property
    def num_branches(self) -> int:
        """Rows that the denoiser gets in a step for each image, over all its calls: 2 with classifier-free guidance."""
        return sum(layout.copies for layout in self.findings.layouts)

    @property
    def noising(self) -> NoisingTable:
        """The forward process at those steps."""
        return self.findings.noising

    def sample(
        self,
        prompts: Sequence[str],
        generators: Sequence[torch.Generator],
        *,
        num_images_per_prompt: int = 1,
        denoiser: Denoiser | None = None,
        on_step: Callable[[int], None] = lambda step: None,
        on_transition: Callable[[Transition], None] = lambda transition: None,
    ) -> Sampled:
        """
        Run the pipeline and record it.

        Args:
            prompts (`Sequence[str]` of length P):
                The prompts; each is encoded once.
            generators (`Sequence[torch.Generator]` of length B):
                One for each image, B = P * num_images_per_prompt, prompt by prompt.
            num_images_per_prompt (`int`, *optional*, defaults to 1):
                Images for each prompt.
            denoiser (`Callable`, *optional*):
                The denoiser in its trained form (with adapter, autocast, DDP); the pipeline's own by default.
            on_step (`Callable[[int], None]`, *optional*):
                Called after each denoising step with its index.
            on_transition (`Callable[[Transition], None]`, *optional*):
                Called with each denoising step, before `on_step`.
        """
        arguments = prompt_arguments(self.findings, prompts, num_images_per_prompt)
        return run_recorded(self.runner, self.findings, arguments, generators, denoiser, on_step, on_transition)

    def predict(
        self,
        conditioning: Conditioning,
        latents: torch.Tensor,
        rows: torch.Tensor,
        steps: torch.Tensor,
        denoiser: Denoiser | None = None,
    ) -> torch.Tensor:
        """
        Make the denoiser's recorded calls again, with gradients if they are enabled.

        Args:
            conditioning ([`Conditioning`]):
                The conditioning of a [`Trajectory`] from [`sample`](LogProbPipeline.sample), or of its final latents.
            latents (`torch.Tensor` of shape `(N, ...)`):
                Latents to predict from: the recorded ones, or others.
            rows, steps (`torch.Tensor` of shape `(N,)`, int64):
                Image and step of each prediction; steps may be mixed.
            denoiser (`Callable`, *optional*):
                The denoiser in its trained form, as in `sample`.

        Returns:
            `torch.Tensor` of shape `(N, ...)`: the guided predictions.
        """
        denoiser = self.denoiser if denoiser is None else denoiser
        latents = to_device(latents, self.device)
        return replayed_predictions(self.findings, denoiser, conditioning, latents, rows, steps)

    def ratio_terms(
        self, trajectory: Trajectory, rows: torch.Tensor, steps: torch.Tensor, denoiser: Denoiser | None = None
    ) -> RatioTerms:
        """Replay N transitions and compare the policy of now with the one that sampled them. As [`predict`]."""
        prediction = self.predict(trajectory.conditioning, trajectory.latents[rows, steps], rows, steps, denoiser)
        return ratios_to_record(trajectory, rows, steps, prediction)

    @property
    def sampling_kwargs(self) -> dict[str, Any]:
        """
        The arguments with which a stock pipeline with `stock_scheduler` samples alike: DDIM from the same distribution, flow
        matching without the noise.
        """
        return {**self.runner.call_kwargs, **self.runner.sampler.stock_kwargs}
