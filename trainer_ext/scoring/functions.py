"""Rewards and detectors of the trainer: a function, its name, and its origin."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from ddpo_plugins.contract import check_detections, check_rewards
from ddpo_plugins.spec_checks import IMAGE_FORMATS

from ..errors import ConfigError
from .provenance import Provenance


@dataclass(frozen=True)
class ImageFunction:
    """
    The common part of rewards and detectors: a function with its name. [`RewardFunction`] describes the fields.

    Raises:
        [`ConfigError`]: the function cannot be called as rewards are.
    """

    name: str
    function: Callable[..., Any]
    images: Literal["pil", "pt"] = "pil"
    provenance: Provenance = field(default_factory=Provenance)

    kind: ClassVar[str]  #: in messages
    argument: ClassVar[str]  #: of the trainer
    from_plugin: ClassVar[str]  #: what turns a plugin's name into one

    def __post_init__(self) -> None:
        kind = self.kind.capitalize()
        if not callable(self.function):
            raise ConfigError(f"{kind} {self.name!r} is a {type(self.function).__name__}; it must be a function.")
        if self.images not in IMAGE_FORMATS:
            raise ConfigError(
                f"{kind} {self.name!r} has images={self.images!r}; it must be 'pil' (RGB PIL images) or 'pt' (a float32 tensor "
                "(B, 3, H, W) in [0, 1])."
            )
        parameters = _parameters(self.function)
        if parameters is not None and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            raise ConfigError(
                f"{kind} {self.name!r} takes only ({', '.join(p.name for p in parameters)}). {kind}s are called by keyword "
                "with `images`, `prompts`, every column of the dataset and more: define it as "
                f"`def {self.kind}(images, prompts, **columns)`."
            )
        if self.provenance == Provenance():
            object.__setattr__(self, "provenance", Provenance.of_function(self.function))

    def __str__(self) -> str:
        return f"{self.kind.capitalize()} {self.name!r}"

    def check(self, returned: Any, prompts: Sequence[str]) -> list[float]:
        """
        Return what the function returned for B prompts as B floats, NaN where there is none.

        Raises:
            [`RewardError`]: the function broke its contract.
        """
        return check_rewards(self.name, returned, prompts)


@dataclass(frozen=True)
class RewardFunction(ImageFunction):
    """
    A reward with its name.

    Parameters:
        name (`str`):
            Its name in logs.
        function (`Callable`):
            Called with `images`, `prompts` and the other dataset columns as keywords; returns B floats or `None`s.
        images (`"pil"` or `"pt"`):
            The form of the images: RGB PIL images, or a float32 tensor `(B, 3, H, W)` in [0, 1].
        provenance ([`Provenance`], *optional*):
            Its origin; by default the function's module and name.
    """

    kind = "reward"
    argument = "reward_funcs"
    from_plugin = "reward_from_plugin"


@dataclass(frozen=True)
class DetectorFunction(ImageFunction):
    """
    A detector with its name. It is called like a reward, and says in [0, 1] how sure it is that an image games the reward.

    Parameters:
        name (`str`):
            Its name in logs.
        function (`Callable`):
            Called as in [`RewardFunction`]; `None` means that it cannot say.
        images (`"pil"` or `"pt"`):
            The form of the images, as in [`RewardFunction`].
        provenance ([`Provenance`], *optional*):
            Its origin, as in [`RewardFunction`].
    """

    kind = "detector"
    argument = "detectors"
    from_plugin = "detector_from_plugin"

    def check(self, returned: Any, prompts: Sequence[str]) -> list[float]:
        """Return the values in [0, 1], as [`ImageFunction.check`]."""
        return check_detections(self.name, returned, prompts)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Return the parameters of a function; None for one that does not say, as some built-ins."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


Reward = Callable[..., Any] | RewardFunction
Detector = Callable[..., Any] | DetectorFunction
Function = TypeVar("Function", bound=ImageFunction)


def named_functions(functions: Any, kind: type[Function]) -> list[Function]:
    """
    Give plain functions the name they were defined with.

    Args:
        functions (`Callable`, `ImageFunction`, a sequence of them or `None`):
            The functions that the trainer was given.
        kind (`type`):
            [`RewardFunction`] or [`DetectorFunction`].

    Raises:
        [`ConfigError`]: something else was given, a text for example.
    """
    if functions is None:
        return []
    each = functions if isinstance(functions, Sequence) and not isinstance(functions, str) else [functions]
    return [f if isinstance(f, kind) else kind(_name_of(f, kind), f) for f in each]


def _name_of(function: Any, kind: type[ImageFunction]) -> str:
    if isinstance(function, str):
        raise ConfigError(
            f"{kind.argument} holds the text {function!r}; the trainer takes functions. Turn a plugin's name into one with "
            f"trainer_ext.{kind.from_plugin}({function!r}), or use the command line, which does."
        )
    if isinstance(function, ImageFunction):
        raise ConfigError(f"{kind.argument} holds a {function.kind}, {function.name!r}; it takes {kind.kind}s.")
    return str(function.__name__) if inspect.isroutine(function) else type(function).__name__
