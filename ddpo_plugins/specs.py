"""Specs, which plugins hand over: a name, and a function that builds the named thing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, final

from .errors import InvalidSpecError
from .spec_checks import check_callable, check_description, check_factory, check_images, check_name

if TYPE_CHECKING:
    import torch

    # A Sequence, because a list[float] is not a list[float | None] to a type checker.
    Rewards: TypeAlias = Sequence[float | None] | torch.Tensor
    # What a factory builds is a Reward, but a type checker would refuse as such one that names a column of its dataset.
    RewardFactory: TypeAlias = Callable[..., Callable[..., Rewards | Awaitable[Rewards]]]
    GuidanceRule: TypeAlias = Callable[[tuple[torch.Tensor, ...], float, Mapping[str, Any]], torch.Tensor]


class Reward(Protocol):
    """
    Scores a batch of images. Any function that can be called like this is one; there is nothing to inherit.

    Called by keyword, so a reward names the arguments it wants and takes the rest as `**columns`. B is the number of
    images. One batch is scored after the other, in a separate thread while the next is sampled, so a reward must not
    use the pipeline that is trained, nor communicate with other processes; users can turn that off (`overlap_rewards`).

    Parameters:
        images (`list[PIL.Image.Image]` of length B, or `torch.Tensor` of shape `(B, 3, H, W)`):
            Generated images. By default PIL images in mode RGB; float32 in [0, 1] on the factory's device where the
            spec says `images="pt"`.
        prompts (`list[str]` of length B):
            Prompt of each image.
        **columns:
            Every other column of the dataset as a list of length B, for the row each prompt came from, and:

            - `trainer_state` (`transformers.TrainerState`): a copy that refuses to be changed;
            - `log_metric` (`Callable[[str, float], None]`): `log_metric(name, value)` logs one number of this batch;
            - `log_extra` (`Callable[[str, Sequence[Any]], None]`): `log_extra(name, values)` logs B values, one for
              each image: numbers, texts, lists of these, or None.

    All arguments are copies of its own: nothing that it does to them reaches another reward or the trainer.

    Returns:
        `list[float | None]` of length B or `torch.Tensor` of shape `(B,)`: higher is better, finite, in the reward's
        own unit. None means that there is no reward for this image: it is left out of training, and counted. A reward
        may be an `async def` function; several of those wait at the same time.

    Raises:
        Anything raised here stops the run with a [`RewardError`] that names the reward and the prompts. So does a
        result of another length, NaN or Inf: nothing becomes 0.0.
    """

    # `images` is Any because a reward need not accept both PIL images and tensors.
    def __call__(self, *, images: Any, prompts: list[str], **columns: Any) -> Rewards | Awaitable[Rewards]:
        """Score a batch of images."""
        ...


@dataclass(frozen=True)
class _ImageFunctionSpec:
    """The common part of [`RewardSpec`] and [`DetectorSpec`]: how to build a function of images."""

    name: str
    factory: RewardFactory
    description: str = ""
    images: Literal["pil", "pt"] = "pil"

    def __post_init__(self) -> None:
        spec = type(self).__name__
        kind = spec.removesuffix("Spec").lower()
        check_name(spec, self.name)
        check_callable(spec, self.name, "factory", self.factory, f"lambda device: my_{kind}")
        check_factory(spec, self.name, kind, self.factory)
        check_images(spec, self.name, self.images)
        check_description(spec, self.name, self.description)


@final
@dataclass(frozen=True)
class RewardSpec(_ImageFunctionSpec):
    """
    A reward that a plugin offers.

    Parameters:
        name (`str`):
            How users ask for it, for example `"jpeg_compressibility"`: lower-case letters, digits and underscores,
            starting with a letter. Unique among the rewards of all installed plugins.
        factory (`Callable[..., Reward]`):
            Builds the reward. Called as `factory(device=..., **options)`, once per process, with the user's options;
            this, not import, is where weights are loaded. Name each option: one that the factory does not take is
            then a `TypeError`, instead of being ignored.
        description (`str`, *optional*, defaults to `""`):
            One line for the list of rewards: what is rewarded, in which unit and range.
        images (`"pil"` or `"pt"`, *optional*, defaults to `"pil"`):
            Form of the reward's images: a list of RGB PIL images, or a float32 tensor of shape `(B, 3, H, W)` in
            [0, 1] on the device.

    Raises:
        [`InvalidSpecError`]: if a field is not as described.
    """


@final
@dataclass(frozen=True)
class DetectorSpec(_ImageFunctionSpec):
    """
    A detector that a plugin offers: it tells images that game the reward, for example by showing text.

    Parameters:
        name (`str`):
            How users ask for it; spelt like a reward's. Unique among the detectors of all installed plugins.
        factory (`Callable[..., Reward]`):
            Builds the detector, like the factory in [`RewardSpec`]. The detector is called like a reward and returns values in
            [0, 1]: how sure it is that the image games the reward.
        description (`str`, *optional*, defaults to `""`):
            One line for the list of detectors: what is detected.
        images (`"pil"` or `"pt"`, *optional*, defaults to `"pil"`):
            The form of the images, as in [`RewardSpec`].

    Raises:
        [`InvalidSpecError`]: if a field is not as described.
    """


@final
@dataclass(frozen=True)
class PromptSetSpec:
    """
    A set of prompts that a plugin offers.

    Parameters:
        name (`str`):
            How users ask for it; spelt like a reward's. Unique among the prompt sets of all installed plugins.
        rows (`Callable[[], Iterable[Mapping[str, Any]]]`):
            Called without arguments when the set is used. Each row has a `prompt` (`str`) and any metadata; all rows
            have the same keys, none of which is the name of a reward's argument. The metadata reaches the rewards as
            columns.
        description (`str`, *optional*, defaults to `""`):
            One line for the list of prompt sets: which prompts, and how many.

    Raises:
        [`InvalidSpecError`]: if a field is not as described.
    """

    name: str
    rows: Callable[[], Iterable[Mapping[str, Any]]]
    description: str = ""

    def __post_init__(self) -> None:
        check_name("PromptSetSpec", self.name)
        check_callable("PromptSetSpec", self.name, "rows", self.rows, 'lambda: [{"prompt": "a cat"}]')
        check_description("PromptSetSpec", self.name, self.description)


@final
@dataclass(frozen=True)
class GuidanceSpec:
    """
    A guidance rule that a plugin offers: how a pipeline combines the denoiser's outputs of a step into the prediction
    that it gives to its scheduler.

    A rule is tried with the outputs in both orders, with both signs and in both precisions, and used only if it
    reproduces what the pipeline computed, at every step, within 1e-5. So it says nothing about any of these.

    Parameters:
        name (`str`):
            How users ask for it; spelt like a reward's. Unique among the guidance rules of all installed plugins and the
            built-in ones.
        rule (`Callable[[tuple[torch.Tensor, ...], float, Mapping[str, Any]], torch.Tensor]`):
            Pure function `rule(outputs, guidance_scale, arguments)`. `outputs` are the denoiser's outputs of a step, one
            tensor `(B, C, ...)` for each branch, the conditional one first; `arguments` are those of the pipeline's call,
            with its defaults. Returns the prediction `(B, C, ...)`. Each image's depends on its own rows only, and is
            differentiable. For ratios of exactly 1, it makes the pipeline's operations in the pipeline's order.
        description (`str`, *optional*, defaults to `""`):
            One line for the list of rules.
        pipelines (`tuple[str, ...]`, *optional*, defaults to `()`):
            Names of the pipeline classes that it is for, their subclasses included: with these it is tried first, without
            being asked for. With others it must be asked for by name.
        num_outputs (`int`, *optional*, defaults to 2):
            How many outputs it combines. It is not tried where there are more or fewer. None for any number.

    Raises:
        [`InvalidSpecError`]: if a field is not as described.
    """

    name: str
    rule: GuidanceRule
    description: str = ""
    pipelines: tuple[str, ...] = ()
    num_outputs: int | None = 2

    def __post_init__(self) -> None:
        check_name("GuidanceSpec", self.name)
        check_callable("GuidanceSpec", self.name, "rule", self.rule, "lambda outputs, guidance_scale, arguments: ...")
        check_description("GuidanceSpec", self.name, self.description)
        if not isinstance(self.pipelines, tuple) or not all(isinstance(name, str) for name in self.pipelines):
            raise InvalidSpecError(
                f"GuidanceSpec {self.name!r}: pipelines must be a tuple of class names; got {self.pipelines!r}. "
                'Write for example pipelines=("ZImagePipeline",).'
            )
        if self.num_outputs is not None and (not isinstance(self.num_outputs, int) or self.num_outputs < 1):
            raise InvalidSpecError(
                f"GuidanceSpec {self.name!r}: num_outputs must be 1 or more; got {self.num_outputs!r}. It is 2 for a "
                "conditional and an unconditional output; None for any number."
            )
