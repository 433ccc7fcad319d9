"""One call of a pipeline whose scheduler and denoiser are replaced by ours."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ..errors import ConfigError, PipelineError
from .recording.calls import DenoiserCall, Recorder
from .recording.scheduler import Transition, recording_scheduler
from .transitions.gaussian import TransitionTable
from .transitions.noising import NoisingTable
from .transitions.samplers import Sampler

Denoiser = Callable[..., Any]

DENOISER_NAMES = ("unet", "transformer")


class Runner:
    """
    Calls an unchanged pipeline, except for two of its attributes.

    Args:
        pipeline (`DiffusionPipeline`):
            A text-to-image pipeline with a `unet` or `transformer`.
        sampler ([`Sampler`]):
            Provides the scheduler that replaces the pipeline's own.
        call_kwargs (`Mapping[str, Any]`):
            Arguments of every call.

    Raises:
        [`PipelineError`]: the pipeline has no denoiser.
    """

    def __init__(self, pipeline: DiffusionPipeline, sampler: Sampler, call_kwargs: Mapping[str, Any]):
        self.pipeline = pipeline
        self.denoiser_name = find_denoiser(pipeline)
        self.sampler = sampler
        self.call_kwargs = dict(call_kwargs)

    @property
    def denoiser(self) -> torch.nn.Module:
        """The pipeline's own denoiser."""
        return vars(self.pipeline)[self.denoiser_name]  # `components` reads the signature of the pipeline each time

    def run(
        self,
        arguments: Mapping[str, Any],
        generators: Sequence[torch.Generator],
        denoiser: Denoiser | None,
        on_step: Callable[[list[DenoiserCall], Transition], None],
        on_start: Callable[[TransitionTable, NoisingTable], None] = lambda table, noising: None,
    ) -> torch.Tensor:
        """
        Make images `(B, 3, H, W)` in [0, 1].

        Args:
            arguments (`Mapping[str, Any]`):
                Arguments of this call: `prompt`, as a list, and others.
            generators (`Sequence[torch.Generator]` of length B):
                One for each image.
            denoiser (`Callable`, *optional*):
                Called instead of the pipeline's own denoiser.
            on_step (`Callable`):
                Called with the denoiser calls and the [`Transition`] of each step.
            on_start (`Callable`, *optional*):
                Called with the tables of the run before the first step.
        """
        module = self.denoiser
        recorder = Recorder(module, module if denoiser is None else denoiser)
        scheduler = recording_scheduler(
            self.sampler, generators, on_start, lambda step: on_step(recorder.take_calls(), step)
        )
        call_kwargs = spread_texts(self.call_kwargs, len(arguments["prompt"]))
        with swapped(self.pipeline, {self.denoiser_name: recorder, "scheduler": scheduler}):
            output = self.pipeline(
                **{**call_kwargs, **arguments}, generator=list(generators), output_type="pt", return_dict=False
            )
        return output[0]

    @contextlib.contextmanager
    def noise_within(self, first: int, last: int) -> Iterator[None]:
        """Context manager for runs whose steps have noise from `first` to `last` only. See [`Sampler.within`]."""
        sampler, self.sampler = self.sampler, self.sampler.within(first, last)
        try:
            yield
        finally:
            self.sampler = sampler

    def call_arguments(self) -> dict[str, Any]:
        """Return the arguments of each call, with the pipeline's defaults."""
        parameters = inspect.signature(type(self.pipeline).__call__).parameters
        return {**{name: parameter.default for name, parameter in parameters.items()}, **self.call_kwargs}


def spread_texts(call_kwargs: Mapping[str, Any], num_prompts: int) -> dict[str, Any]:
    """Repeat each negative prompt for all prompts: Stable Diffusion refuses a single text with a list of prompts."""
    return {
        name: [value] * num_prompts if name.startswith("negative_prompt") and isinstance(value, str) else value
        for name, value in call_kwargs.items()
    }


def check_call(pipeline: DiffusionPipeline, call_kwargs: Mapping[str, Any]) -> None:
    """Raise [`PipelineError`] unless the pipeline makes images from prompts and accepts all arguments."""
    find_denoiser(pipeline)
    # Not counting **kwargs: several pipelines have it and ignore its content, including misspelt options.
    name, known = type(pipeline).__name__, list(inspect.signature(type(pipeline).__call__).parameters)[1:]
    takes = f"It takes: {', '.join(known)}."
    if "prompt" not in known:
        raise PipelineError(f"{name} takes no prompt, and DDPO trains pipelines that draw images for prompts. {takes}")
    for argument in call_kwargs:
        if argument not in known:
            hint = " Leave it out by guidance_scale=None." if argument == "guidance_scale" else ""
            raise PipelineError(f"{name} has no argument {argument!r}. {takes}{hint}")


#: Arguments of the pipeline's calls that the policy makes itself, and where they come from.
OWNED_ARGUMENTS = {
    "num_inference_steps": "set the option num_inference_steps",
    "guidance_scale": "set the option guidance_scale",
    "eta": "set the option eta",
    "num_images_per_prompt": "set the option num_images_per_prompt",
    "prompt": "prompts are those of the dataset",
    "prompt_embeds": "prompts are those of the dataset, as texts",
    "generator": "every image has its own seed; set the option seed",
    "latents": "every image begins from noise of its own seed",
    "output_type": "images are read as tensors",
    "return_dict": "images are read as tensors",
}


def check_not_owned(pipeline_kwargs: Mapping[str, Any]) -> None:
    """Raise [`ConfigError`] if additional arguments of the pipeline's calls are some that the policy makes itself."""
    for name, instead in OWNED_ARGUMENTS.items():
        if name in pipeline_kwargs:
            raise ConfigError(f"pipeline_kwargs has {name!r}, which is not passed on: {instead}.")


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
    """Replace attributes of the pipeline inside the block. Not by `setattr`: that would rewrite its configuration."""
    originals = {name: vars(pipeline)[name] for name in attributes}
    vars(pipeline).update(attributes)
    try:
        yield
    finally:
        vars(pipeline).update(originals)
