"""Any diffusers text-to-image pipeline as a policy: record what it does, replay it with gradients."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ..errors import PipelineError
from .guidance import Guidance, GuidanceRule, infer_guidance, resolve_rules
from .noising import NoisingTable
from .recorder import CallLayout, DenoiserCall, Recorder, infer_layout, unflatten
from .recording import Recording
from .samplers import SamplerOptions, choose_sampler
from .scheduler import Transition, log_prob_scheduler
from .trajectory import CallRecord, Trajectory
from .transitions import RatioTerms, TransitionTable, ratio_terms

Denoiser = Callable[..., Any]

DENOISER_NAMES = ("unet", "transformer")

# Of unequal length: some pipelines pass a mask only when prompts are padded.
PROBE_PROMPTS = ("a cat", "a dog riding a bike", "two bears")


@dataclass(frozen=True)
class Sampled:
    """
    What one call of the policy makes.

    Parameters:
        trajectory ([`Trajectory`]):
            The denoising runs.
        images (`torch.Tensor` of shape `(B, H, W, 3)`, uint8):
            The decoded images, RGB.
    """

    trajectory: Trajectory
    images: torch.Tensor


class LogProbPipeline:
    """
    A pipeline whose denoising steps have log-probabilities. The pipeline itself runs as it is.

    For a rollout, two attributes of the pipeline are swapped: the scheduler, for one that samples from Gaussians and
    reports them, and the denoiser, for one that records its calls. Which arguments belong to single images and which
    rule combines guided predictions is inferred by a dry run, and the rule is verified at every step.

    Args:
        pipeline (`DiffusionPipeline`):
            A text-to-image pipeline with a `unet` or `transformer`.
        num_inference_steps (`int`, *optional*, defaults to 50):
            T.
        guidance_scale (`float`, *optional*, defaults to 5.0):
            As the pipeline understands it.
        eta (`float`, *optional*, defaults to 1.0):
            DDIM's weight of the noise, in (0, 1].
        guidance (`str` or `GuidanceRule`, *optional*):
            Name of a rule, or a function. Inferred by default.
        pipeline_kwargs (`Mapping[str, Any]`, *optional*):
            More arguments for every call of the pipeline (`negative_prompt`, `height`, ...).
        sampler (`str`, *optional*), noise_level (`float`, *optional*), sde_window (`Sequence[int]`, *optional*):
            As in [`SamplerOptions`].

    Raises:
        [`PipelineError`]: the pipeline cannot be recorded; the message says why.
        [`GuidanceError`]: its guidance rule cannot be inferred.
        [`ConfigError`]: an option of sampling that leaves no log-probabilities.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        eta: float = 1.0,
        guidance: str | GuidanceRule | None = None,
        pipeline_kwargs: Mapping[str, Any] | None = None,
        sampler: str | None = None,
        noise_level: float = 0.7,
        sde_window: Sequence[int] | None = None,
    ):
        sampling = SamplerOptions(sampler, eta, noise_level, sde_window)
        sampling.check_window(num_inference_steps)
        rules = resolve_rules(guidance)
        self.pipeline = pipeline
        self.denoiser_name = find_denoiser(pipeline)
        self.call_kwargs: dict[str, Any] = {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            **(pipeline_kwargs or {}),
        }
        self._check_call_kwargs()
        self.sampler = choose_sampler(pipeline.scheduler, sampling)
        self.layouts, self.guidance, self.table, self.noising = self._probe(rules)

    @property
    def denoiser(self) -> torch.nn.Module:
        """The pipeline's own denoiser."""
        return self.pipeline.components[self.denoiser_name]

    def sample(
        self,
        prompts: Sequence[str],
        generators: Sequence[torch.Generator],
        *,
        num_images_per_prompt: int = 1,
        denoiser: Denoiser | None = None,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> Sampled:
        """
        Run the pipeline and record it.

        Args:
            prompts (`Sequence[str]` of length P):
                Each is encoded once.
            generators (`Sequence[torch.Generator]` of length B):
                One for each image, B = P * num_images_per_prompt, prompt by prompt.
            num_images_per_prompt (`int`, *optional*, defaults to 1):
                Images for each prompt.
            denoiser (`Callable`, *optional*):
                The denoiser as it is trained (with adapter, autocast, DDP); the pipeline's own by default.
            on_step (`Callable[[int], None]`, *optional*):
                Called after each denoising step with its index.
        """
        recording = Recording(self.layouts, self.guidance)

        def record(calls: list[DenoiserCall], transition: Transition) -> None:
            recording.add(calls, transition)
            on_step(transition.step)

        arguments = {"prompt": list(prompts), "num_images_per_prompt": num_images_per_prompt}
        images = self._run(arguments, generators, denoiser, record, recording.start)
        return Sampled(recording.finish(), to_uint8(images))

    def predict(
        self,
        calls: Sequence[CallRecord],
        latents: torch.Tensor,
        rows: torch.Tensor,
        steps: torch.Tensor,
        denoiser: Denoiser | None = None,
    ) -> torch.Tensor:
        """
        Make the denoiser's recorded calls again, with gradients if they are enabled.

        Args:
            calls (`Sequence[CallRecord]`):
                Of a [`Trajectory`] from [`sample`](LogProbPipeline.sample), or of its finals.
            latents (`torch.Tensor` of shape `(N, ...)`):
                State to predict from: the recorded one, or another.
            rows, steps (`torch.Tensor` of shape `(N,)`, int64):
                Image and step of each prediction; steps may be mixed.
            denoiser (`Callable`, *optional*):
                As in `sample`.

        Returns:
            `torch.Tensor` of shape `(N, ...)`: the guided predictions.
        """
        denoiser = self.denoiser if denoiser is None else denoiser
        latents = latents.to(self.pipeline.device)
        outputs: list[torch.Tensor] = []
        for layout, call in zip(self.layouts, calls, strict=True):
            arguments = unflatten(call.arguments(layout, latents, rows, steps))
            outputs += layout.branches(denoiser(**arguments)[0])
        return self.guidance(outputs, latents.shape[1])

    def ratio_terms(
        self, trajectory: Trajectory, rows: torch.Tensor, steps: torch.Tensor, denoiser: Denoiser | None = None
    ) -> RatioTerms:
        """Replay N transitions and compare the policy of now with the one that sampled them. As [`predict`]."""
        prediction = self.predict(trajectory.calls, trajectory.latents[rows, steps], rows, steps, denoiser)
        latents, old_output, next_latents = (
            values.to(prediction.device)
            for values in (
                trajectory.latents[rows, steps],
                trajectory.model_outputs[rows, steps],
                trajectory.latents[rows, steps + 1],
            )
        )
        return ratio_terms(trajectory.table, steps, latents, prediction, old_output, next_latents)

    def _run(
        self,
        arguments: Mapping[str, Any],
        generators: Sequence[torch.Generator],
        denoiser: Denoiser | None,
        on_step: Callable[[list[DenoiserCall], Transition], None],
        on_start: Callable[[TransitionTable, NoisingTable], None] = lambda table, noising: None,
    ) -> torch.Tensor:
        module = self.denoiser
        recorder = Recorder(module, module if denoiser is None else denoiser)
        scheduler = log_prob_scheduler(
            self.sampler, generators, on_start, lambda step: on_step(recorder.take_calls(), step)
        )
        call_kwargs = spread_texts(self.call_kwargs, len(arguments["prompt"]))
        with swapped(self.pipeline, {self.denoiser_name: recorder, "scheduler": scheduler}):
            output = self.pipeline(
                **{**call_kwargs, **arguments}, generator=list(generators), output_type="pt", return_dict=False
            )
        return output[0]

    def _probe(
        self, rules: Mapping[str, GuidanceRule]
    ) -> tuple[tuple[CallLayout, ...], Guidance, TransitionTable, NoisingTable]:
        """Run the first step with 2 and with 3 prompts: learn the layout of the calls and the guidance rule."""
        two, *_ = self._first_step(PROBE_PROMPTS[:2])
        three, transition, table, noising = self._first_step(PROBE_PROMPTS)
        layouts = tuple(infer_layout(a, b) for a, b in zip(two, three, strict=True))
        outputs = [
            branch for layout, call in zip(layouts, three, strict=True) for branch in layout.branches(call.output)
        ]
        guidance = infer_guidance(rules, outputs, transition.model_output, self.call_arguments())
        return layouts, guidance, table, noising

    def _first_step(
        self, prompts: Sequence[str]
    ) -> tuple[list[DenoiserCall], Transition, TransitionTable, NoisingTable]:
        seen: list[tuple[list[DenoiserCall], Transition]] = []
        tables: list[tuple[TransitionTable, NoisingTable]] = []

        def stop(calls: list[DenoiserCall], transition: Transition) -> None:
            seen.append((calls, transition))
            raise _StopDryRun

        generators = [torch.Generator().manual_seed(index) for index in range(len(prompts))]
        with contextlib.suppress(_StopDryRun):
            self._run({"prompt": list(prompts)}, generators, None, stop, lambda *both: tables.append(both))
        if not seen:
            raise PipelineError("The pipeline made images without calling scheduler.step; it cannot be recorded.")
        return *seen[0], *tables[0]

    @property
    def sampling_kwargs(self) -> dict[str, Any]:
        """
        The arguments of a stock pipeline with `stock_scheduler`. DDIM then samples from the same distribution; flow
        matching without noise.
        """
        return {**self.call_kwargs, **self.sampler.stock_kwargs}

    def call_arguments(self) -> dict[str, Any]:
        """Return the arguments of each call, with the pipeline's defaults."""
        parameters = inspect.signature(type(self.pipeline).__call__).parameters
        return {**{name: parameter.default for name, parameter in parameters.items()}, **self.call_kwargs}

    def _check_call_kwargs(self) -> None:
        known = inspect.signature(type(self.pipeline).__call__).parameters
        for name in self.call_kwargs:
            if name not in known:
                raise PipelineError(
                    f"{type(self.pipeline).__name__} has no argument {name!r}. It takes: {', '.join(list(known)[1:])}."
                )


def spread_texts(call_kwargs: Mapping[str, Any], num_prompts: int) -> dict[str, Any]:
    """Repeat each negative prompt for all prompts: Stable Diffusion refuses one text beside a list of prompts."""
    return {
        name: [value] * num_prompts if name.startswith("negative_prompt") and isinstance(value, str) else value
        for name, value in call_kwargs.items()
    }


class _StopDryRun(Exception):  # noqa: N818 - not an error
    """Ends the pipeline's call after its first step."""


def find_denoiser(pipeline: DiffusionPipeline) -> str:
    """Return the name of the component that predicts: `"unet"` or `"transformer"`."""
    found = [name for name in DENOISER_NAMES if pipeline.components.get(name) is not None]
    if not found:
        raise PipelineError(
            f"{type(pipeline).__name__} has the components {', '.join(pipeline.components)}; DDPO trains one named "
            f"{' or '.join(DENOISER_NAMES)}."
        )
    return found[0]


@contextlib.contextmanager
def swapped(pipeline: DiffusionPipeline, attributes: Mapping[str, Any]) -> Iterator[None]:
    """Replace attributes of the pipeline for a while. Not by `setattr`: that would rewrite its configuration."""
    originals = {name: vars(pipeline)[name] for name in attributes}
    vars(pipeline).update(attributes)
    try:
        yield
    finally:
        vars(pipeline).update(originals)


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Round images `(B, 3, H, W)` in [0, 1] to uint8 `(B, H, W, 3)` on the host, as diffusers does for PIL."""
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()
