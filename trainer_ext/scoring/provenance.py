"""The origin of rewards and detectors, for the record of a run. It never contains secrets."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ddpo_plugins.catalogue import Origin
from ddpo_plugins.masking import masked, name_of

from .code import code_fingerprint


@dataclass(frozen=True)
class Provenance:
    """
    The origin of a reward or detector: a plugin, or a function of the user.

    Parameters:
        function (`str`, *optional*):
            Module and qualified name of a function that was passed directly.
        plugin, distribution, version (`str`, *optional*):
            The plugin's origin, as in [`Origin`].
        options (`Mapping[str, Any]`):
            The options of the plugin's factory: those that were given, and its defaults for the others, so that model ids and
            pinned revisions are included. The values of secrets (`api_key`) are hidden.
        code (`str`, *optional*):
            Fingerprint of the function or the plugin's factory, which changes with what it does; see [`code_fingerprint`].
        served (`Mapping[str, Any]`):
            The function on a server that computes the values, if this one only asks for them.
    """

    function: str | None = None
    plugin: str | None = None
    distribution: str | None = None
    version: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None
    served: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", masked(self.options))
        object.__setattr__(self, "served", masked(self.served))

    @classmethod
    def of_function(cls, function: Callable[..., Any]) -> Provenance:
        """Describe a function, or an object that can be called, by its class."""
        code = code_fingerprint(function)
        while isinstance(function, functools.partial):
            function = function.func
        return cls(name_of(function if inspect.isroutine(function) else type(function)), code=code)

    @classmethod
    def of_plugin(cls, origin: Origin, factory: Callable[..., Any], options: Mapping[str, Any]) -> Provenance:
        """Describe what `factory` of a plugin builds with `options`."""
        return cls(None, *origin, {**defaults_of(factory), **options}, code_fingerprint(factory))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are set, for a file."""
        return {name: value for name, value in vars(self).items() if value is not None and value != {}}


def options_of(factory: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Return the options that a factory takes by name, without `device`; `None` if it takes any, or does not say."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some built-ins have no signature
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name: parameter for name, parameter in parameters.items() if parameter.kind in by_name and name != "device"}


def defaults_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the options of a factory that have a default."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty and name != "device"
    }
