"""Facts that `ddpo doctor` finds out about an unchanged pipeline, each with its lines of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Lines: TypeAlias = list[
    tuple[str, str]
]  #: label and text of each line; the label is empty if a line continues the one before


@dataclass(frozen=True)
class PipelineFacts:
    """
    The pipeline.

    Parameters:
        pipeline, scheduler (`str`):
            Their class names.
        components (`tuple[str, ...]`):
            Names of the pipeline's parts.
        default_steps (`int`, *optional*):
            Denoising steps of a call that names none; `None` if every call must.
    """

    pipeline: str
    scheduler: str
    components: tuple[str, ...]
    default_steps: int | None

    def lines(self) -> Lines:
        """Return the lines of the report."""
        return [("pipeline", f"{self.pipeline} ({', '.join(self.components)}), {self.scheduler}")]


@dataclass(frozen=True)
class DenoiserFacts:
    """
    The component that is trained.

    Parameters:
        component, kind (`str`):
            Name in the pipeline (`"unet"` or `"transformer"`), and class.
        num_parameters (`int`):
            Number of its parameters.
        dtype (`str`):
            Precision of the weights.
    """

    component: str
    kind: str
    num_parameters: int
    dtype: str

    def lines(self) -> Lines:
        """Return the lines of the report."""
        size = f"{self.num_parameters / 1e6:.3g} M parameters"
        return [("denoiser", f"{self.component}: {self.kind}, {size}, {self.dtype}")]


@dataclass(frozen=True)
class SamplerFacts:
    """
    The denoising steps.

    Parameters:
        sampler (`str`):
            One of `SAMPLERS`.
        num_steps (`int`):
            T, as the pipeline derives it from `num_inference_steps`.
        stochastic_steps (`tuple[int, ...]`):
            Steps with noise, which can be trained.
        largest_weight (`float`):
            Largest |b| / std of these steps; a step's gradient grows with it.
        heaviest_step (`int`):
            The step with the largest weight.
    """

    sampler: str
    num_steps: int
    stochastic_steps: tuple[int, ...]
    largest_weight: float
    heaviest_step: int

    def lines(self) -> Lines:
        """Return the lines of the report."""
        noisy, first, last = len(self.stochastic_steps), self.stochastic_steps[0], self.stochastic_steps[-1]
        steps = f"{self.num_steps} steps, {noisy} with noise ({first} to {last})"
        heaviest = f"largest |b| / std {self.largest_weight:.3g} in step {self.heaviest_step}"
        return [("sampler", f"{self.sampler}: {steps}, {heaviest}")]


@dataclass(frozen=True)
class SolverFacts:
    """
    Denoising steps without a log-probability, for algorithms that need none.

    Parameters:
        sampler (`str`):
            One of `SAMPLERS`.
        num_steps (`int`):
            Calls of the scheduler for an image.
    """

    sampler: str
    num_steps: int

    def lines(self) -> Lines:
        """Return the lines of the report."""
        return [
            ("sampler", f"{self.sampler}: {self.num_steps} steps without a log-probability, which all can be trained")
        ]


@dataclass(frozen=True)
class GuidanceFacts:
    """
    How the denoiser's outputs are combined.

    Parameters:
        rule (`str`):
            Name of the guidance rule.
        scale (`float`):
            Guidance scale.
        num_outputs (`int`):
            Number of denoiser outputs that it combines in each step.
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

    def lines(self) -> Lines:
        """Return the lines of the report."""
        if self.num_outputs == 1:
            text = f"{self.rule}: one denoiser output a step"
        else:
            order = "conditional first" if self.cond_first else "conditional last"
            text = f"{self.rule} of {self.num_outputs} denoiser outputs, {order}, scale {self.scale:g}"
        negated = ", negated" if self.sign < 0 else ""
        return [("guidance", f"{text}{negated}; off by {self.error:.1e}")]


@dataclass(frozen=True)
class CallFacts:
    """
    One denoiser call of a step.

    Parameters:
        latents, timestep (`str`):
            Names of these arguments.
        row_shape (`tuple[int, ...]`):
            Shape of one image's latents, as the denoiser receives them.
        copies (`int`):
            Rows for each image.
        per_image, lists, shared (`tuple[str, ...]`):
            Arguments with rows for each image; those of them that are lists; those that are the same for all images.
        dtype (`str`):
            Precision of the latents, as the denoiser receives them.
    """

    latents: str
    timestep: str
    row_shape: tuple[int, ...]
    copies: int
    per_image: tuple[str, ...]
    lists: tuple[str, ...]
    shared: tuple[str, ...]
    dtype: str

    def lines(self) -> Lines:
        """Return the lines of the report."""
        rows = f"{self.copies} row(s) an image" if self.copies > 1 else "1 row an image"
        lists = set(self.lists)
        own = ", ".join(f"{name} (a list)" if name in lists else name for name in self.per_image)
        shape = "x".join(map(str, self.row_shape))
        return [
            (
                "call",
                f"{self.latents} {shape} {self.dtype}{' (a list)' * (self.latents in lists)}, {self.timestep}; {rows}",
            ),
            ("", f"per image: {own or 'nothing'}; shared: {', '.join(self.shared) or 'nothing'}"),
        ]
