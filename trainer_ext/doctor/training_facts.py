"""Facts that `ddpo doctor` finds out by training a pipeline, each with its lines of the report."""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Lines


@dataclass(frozen=True)
class AdapterFacts:
    """
    The weights that are trained.

    Parameters:
        targets (`tuple[str, ...]`):
            Names of the layers that get an adapter; none where all weights are trained.
        num_layers (`int`):
            Number of layers with such a name.
        num_parameters (`int`):
            Number of trained parameters.
        files (`tuple[str, ...]`):
            Names of the files that saving writes.
        loaded_by (`str`):
            Method that loads these files.
    """

    targets: tuple[str, ...]
    num_layers: int
    num_parameters: int
    files: tuple[str, ...]
    loaded_by: str

    def lines(self) -> Lines:
        """Return the lines of the report."""
        if not self.targets:
            return [("training", f"all {self.num_parameters / 1e6:.3g} M parameters; loads with {self.loaded_by}")]
        size = f"{self.num_layers} layers ({', '.join(self.targets)}), {self.num_parameters / 1e3:.4g} k parameters"
        return [("adapter", f"{size}; {', '.join(self.files)} loads with {self.loaded_by}")]


@dataclass(frozen=True)
class ReplayFacts:
    """
    How exactly recorded steps are replayed.

    Parameters:
        repeats_prompts (`bool`):
            Whether the pipeline is given repeated prompts for several images of one, instead of `num_images_per_prompt`.
        image_shape (`tuple[int, ...]`):
            Height, width and channels.
        same_layout, mixed_steps (`float`):
            Largest |ratio - 1| before any update, replayed in the rollout's own batch, and in a batch of other images and steps.
    """

    repeats_prompts: bool
    image_shape: tuple[int, ...]
    same_layout: float
    mixed_steps: float

    def lines(self) -> Lines:
        """Return the lines of the report."""
        height, width, _ = self.image_shape
        how = "repeats the prompt" if self.repeats_prompts else "num_images_per_prompt"
        return [
            ("images", f"{width} x {height}; several of a prompt by {how}"),
            (
                "replay",
                f"|ratio - 1| {self.same_layout:.1e} as sampled, {self.mixed_steps:.1e} in a batch of other steps",
            ),
        ]


@dataclass(frozen=True)
class GradientFacts:
    """
    Which weights a gradient reaches.

    Parameters:
        num_tensors (`int`):
            Number of trained tensors.
        without (`tuple[str, ...]`):
            Names of the tensors that no gradient reaches.
    """

    num_tensors: int
    without: tuple[str, ...]

    def lines(self) -> Lines:
        """Return the lines of the report."""
        reached = self.num_tensors - len(self.without)
        lines = [("gradient", f"reaches {reached} of {self.num_tensors} trained tensors")]
        if self.without:
            more = " ..." * (len(self.without) > 3)
            lines.append(
                ("", f"not {', '.join(self.without[:3])}{more}: these learn nothing; leave them out of the adapter")
            )
        return lines


@dataclass(frozen=True)
class CostFacts:
    """
    The cost of an image.

    Parameters:
        device (`str`):
            The device on which it was measured.
        sampling_seconds (`float`):
            Per image, all steps, with encoding and decoding.
        training_seconds (`float`):
            Per image and trained step, forward and backward.
        peak_bytes (`int`):
            The device's memory, or the process's for a CPU, from its start.
        update_seconds (`float`):
            An update of the optimizer; 0 where none was made, as with the smallest batches.
    """

    device: str
    sampling_seconds: float
    training_seconds: float
    peak_bytes: int
    update_seconds: float = 0.0

    def lines(self) -> Lines:
        """Return the lines of the report."""
        seconds = (
            f"{self.sampling_seconds:.3g} s to sample an image, {self.training_seconds:.3g} s to train one step of it"
        )
        return [("cost", f"{seconds}, {self.peak_bytes / 2**30:.3g} GiB at most, on {self.device}")]
