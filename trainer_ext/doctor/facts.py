"""What `ddpo doctor` finds out about a pipeline, part by part."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class PipelineFacts:
    """
    Parameters:
        pipeline, scheduler (`str`):
            Their classes.
        components (`tuple[str, ...]`):
            Names of the pipeline's parts.
    """

    pipeline: str
    scheduler: str
    components: tuple[str, ...]


@dataclass(frozen=True)
class DenoiserFacts:
    """
    Parameters:
        component, kind (`str`):
            Name in the pipeline (`"unet"` or `"transformer"`), and class.
        num_parameters (`int`):
            Numbers in its weights.
        dtype (`str`):
            Of the weights.
    """

    component: str
    kind: str
    num_parameters: int
    dtype: str


@dataclass(frozen=True)
class SamplerFacts:
    """
    Parameters:
        sampler (`str`):
            One of `SAMPLERS`.
        num_steps (`int`):
            T, as the pipeline made it of `num_inference_steps`.
        stochastic_steps (`tuple[int, ...]`):
            Those with noise, which can be trained.
        largest_weight (`float`):
            Largest |b| / std of them: what a step's gradient grows with.
        heaviest_step (`int`):
            The step that has it.
    """

    sampler: str
    num_steps: int
    stochastic_steps: tuple[int, ...]
    largest_weight: float
    heaviest_step: int


@dataclass(frozen=True)
class GuidanceFacts:
    """
    Parameters:
        rule (`str`):
            Name of the guidance rule.
        scale (`float`):
            Guidance scale.
        num_outputs (`int`):
            Denoiser outputs of a step that it combines.
        cond_first (`bool`):
            Whether the conditional output comes first.
        sign (`int`):
            -1 where the pipeline negates the result.
        error (`float`):
            How far the rule is off in the dry run, relative to the largest element.
    """

    rule: str
    scale: float
    num_outputs: int
    cond_first: bool
    sign: int
    error: float


@dataclass(frozen=True)
class CallFacts:
    """
    One denoiser call of a step.

    Parameters:
        latents, timestep (`str`):
            Names of these arguments.
        row_shape (`tuple[int, ...]`):
            Of the latents of one image, as the denoiser gets them.
        copies (`int`):
            Rows for each image.
        per_image, lists, shared (`tuple[str, ...]`):
            Arguments with rows for each image; those of them that are lists; those that are the same for all images.
        dtype (`str`):
            Of the latents, as the denoiser gets them.
    """

    latents: str
    timestep: str
    row_shape: tuple[int, ...]
    copies: int
    per_image: tuple[str, ...]
    lists: tuple[str, ...]
    shared: tuple[str, ...]
    dtype: str


@dataclass(frozen=True)
class AdapterFacts:
    """
    Parameters:
        targets (`tuple[str, ...]`):
            Names of the layers that get an adapter; none where all weights are trained.
        num_layers (`int`):
            Layers that have such a name.
        num_parameters (`int`):
            Numbers that are trained.
        files (`tuple[str, ...]`):
            What saving writes.
        loaded_by (`str`):
            What loads that.
    """

    targets: tuple[str, ...]
    num_layers: int
    num_parameters: int
    files: tuple[str, ...]
    loaded_by: str


@dataclass(frozen=True)
class ReplayFacts:
    """
    Parameters:
        repeats_prompts (`bool`):
            Whether several images of a prompt are asked for by repeating it, not by `num_images_per_prompt`.
        image_shape (`tuple[int, ...]`):
            Height, width and channels.
        same_layout, mixed_steps (`float`):
            Largest |ratio - 1| before any update: replayed in the batch of the rollout, and in one of other images and steps.
    """

    repeats_prompts: bool
    image_shape: tuple[int, ...]
    same_layout: float
    mixed_steps: float


@dataclass(frozen=True)
class GradientFacts:
    """
    Parameters:
        num_tensors (`int`):
            Trained tensors.
        without (`tuple[str, ...]`):
            Names of those that no gradient reaches.
    """

    num_tensors: int
    without: tuple[str, ...]


@dataclass(frozen=True)
class CostFacts:
    """
    Parameters:
        device (`str`):
            What it was measured on.
        sampling_seconds (`float`):
            Per image, all steps, with encoding and decoding.
        training_seconds (`float`):
            Per image and trained step, forward and backward.
        peak_bytes (`int`):
            The device's memory, or the process's for a CPU, from its start.
    """

    device: str
    sampling_seconds: float
    training_seconds: float
    peak_bytes: int


Facts: TypeAlias = (
    PipelineFacts
    | DenoiserFacts
    | SamplerFacts
    | GuidanceFacts
    | CallFacts
    | AdapterFacts
    | ReplayFacts
    | GradientFacts
    | CostFacts
)


@dataclass(frozen=True)
class Report:
    """
    Parameters:
        facts (`tuple[Facts, ...]`):
            What was found, up to the refusal if there is one.
        refusal (`str`, *optional*):
            Why the pipeline cannot be trained, and what to do. `None` if it can.
    """

    facts: tuple[Facts, ...]
    refusal: str | None

    @property
    def can_be_trained(self) -> bool:
        """The verdict."""
        return self.refusal is None

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dumps` takes: by kind of facts, a list of them, since a step may make several calls."""
        found: dict[str, list[dict[str, Any]]] = {}
        for facts in self.facts:
            found.setdefault(type(facts).__name__.removesuffix("Facts").lower(), []).append(asdict(facts))
        return {"can_be_trained": self.can_be_trained, "refusal": self.refusal, **found}
