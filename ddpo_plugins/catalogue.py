"""The offers of the installed plugins, the origin of each, and the plugins that failed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar, final

from .errors import DuplicateNameError, UnknownNameError, describe
from .specs import DetectorSpec, GuidanceSpec, PromptSetSpec, RewardSpec

Kind = Literal["reward", "detector", "prompt set", "guidance rule"]
SpecT = TypeVar("SpecT", bound=RewardSpec | DetectorSpec | PromptSetSpec | GuidanceSpec)


class Origin(NamedTuple):
    """
    The origin of a plugin.

    Parameters:
        plugin (`str`):
            Name of its entry point, or the name it was registered under.
        distribution (`str`, *optional*):
            Name of the installed package. None for a plugin that was registered by hand.
        version (`str`, *optional*):
            Version of the installed package.
    """

    plugin: str
    distribution: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        package = f"{self.distribution} {self.version}" if self.distribution else "registered by hand"
        return f"{self.plugin!r} ({package})"

    @property
    def removal(self) -> str:
        """How to remove the plugin, as an imperative."""
        return f"`pip uninstall {self.distribution}`" if self.distribution else f"do not register {self.plugin!r}"


@final
@dataclass(frozen=True)
class PluginFailure:
    """
    A plugin that failed, in whole or in one hook. The others are not affected.

    Parameters:
        plugin (`str`):
            Name of its entry point, or the name it was registered under.
        distribution (`str`, *optional*):
            Name of the installed package. None for a plugin that was registered by hand.
        version (`str`, *optional*):
            Version of the installed package.
        error (`BaseException`):
            The error, with its traceback if it comes from the plugin's own code.
        advice (`str`):
            Advice for users, one sentence.
    """

    plugin: str
    distribution: str | None
    version: str | None
    error: BaseException
    advice: str

    def __str__(self) -> str:
        origin = Origin(self.plugin, self.distribution, self.version)
        return f"Plugin {origin} failed: {describe(self.error)}. {self.advice}"


@final
@dataclass(frozen=True)
class Offer(Generic[SpecT]):
    """
    One thing that one plugin offers.

    Parameters:
        kind (`"reward"`, `"detector"`, `"prompt set"` or `"guidance rule"`):
            Kind of the offer.
        spec (`RewardSpec`, `DetectorSpec`, `PromptSetSpec` or `GuidanceSpec`):
            The spec that the plugin declared.
        plugin (`str`):
            Name of the plugin's entry point, or the name it was registered under.
        distribution (`str`, *optional*):
            Name of the installed package. None for a plugin that was registered by hand.
        version (`str`, *optional*):
            Version of the installed package.
    """

    kind: Kind
    spec: SpecT
    plugin: str
    distribution: str | None = None
    version: str | None = None

    @property
    def origin(self) -> Origin:
        """The origin of the plugin."""
        return Origin(self.plugin, self.distribution, self.version)


@final
class Offers(Mapping[str, Offer[SpecT]]):
    """
    Offers of one kind by name, in alphabetical order: a mapping. A name that two plugins claim is not in it, and looking it
    up raises a separate error.

    Parameters:
        kind (`"reward"`, `"detector"`, `"prompt set"` or `"guidance rule"`):
            Kind of the offers, for messages.
        offers (`Iterable[Offer]`):
            The offers, in any order; names may repeat.
        failures (`Iterable[PluginFailure]`, *optional*, defaults to `()`):
            Plugins that an unknown name may belong to.
    """

    def __init__(self, kind: Kind, offers: Iterable[Offer[SpecT]], failures: Iterable[PluginFailure] = ()) -> None:
        claims: dict[str, list[Offer[SpecT]]] = {}
        for offer in offers:
            claims.setdefault(offer.spec.name, []).append(offer)
        self._kind = kind
        self._offers = {name: claim[0] for name, claim in sorted(claims.items()) if len(claim) == 1}
        self._failures = tuple(failures)
        #: Names that two or more plugins claim, with what each of them offers.
        self.clashes = {name: tuple(claim) for name, claim in sorted(claims.items()) if len(claim) > 1}

    def __getitem__(self, name: str) -> Offer[SpecT]:
        """
        Return the offer of that name.

        Raises:
            [`UnknownNameError`]: if no plugin offers it; says what is on offer and which plugins failed.
            [`DuplicateNameError`]: if two plugins offer it; says which.
        """
        if name in self.clashes:
            raise self.clash_error(name)
        if name not in self._offers:
            raise self._unknown_error(name)
        return self._offers[name]

    def __contains__(self, name: object) -> bool:
        return name in self._offers

    def __iter__(self) -> Iterator[str]:
        return iter(self._offers)

    def __len__(self) -> int:
        return len(self._offers)

    def __repr__(self) -> str:
        return f"Offers({self._kind}: {', '.join(self) or 'none'})"

    def clash_error(self, name: str) -> DuplicateNameError:
        """Return the error for a name in `clashes`."""
        origins = [offer.origin for offer in self.clashes[name]]
        return DuplicateNameError(
            f"{self._kind.capitalize()} {name!r} is claimed by plugins {' and '.join(map(str, origins))}. "
            f"Keep one: {' or '.join(origin.removal for origin in origins)}."
        )

    def _unknown_error(self, name: str) -> UnknownNameError:
        near = " or ".join(map(repr, difflib.get_close_matches(name, self._offers)))
        message = f"Unknown {self._kind} {name!r}{f'; did you mean {near}?' if near else '.'}"
        message += f" Available: {', '.join(self)}." if self else f" No loaded plugin offers a {self._kind}."
        if self._failures:
            message += f" It may belong to a plugin that failed. {' '.join(map(str, self._failures))}"
        else:
            message += " If it belongs to another plugin, install that; after adding an entry point, install it again."
        return UnknownNameError(message)


@final
@dataclass(frozen=True)
class Catalogue:
    """
    The offers of the installed plugins.

    Parameters:
        rewards (`Offers[RewardSpec]`):
            Rewards by name.
        detectors (`Offers[DetectorSpec]`):
            Detectors by name.
        prompt_sets (`Offers[PromptSetSpec]`):
            Prompt sets by name.
        guidance_rules (`Offers[GuidanceSpec]`):
            Guidance rules by name.
        failures (`tuple[PluginFailure, ...]`):
            Failures while the catalogue was built; empty if there were none.
    """

    rewards: Offers[RewardSpec]
    detectors: Offers[DetectorSpec]
    prompt_sets: Offers[PromptSetSpec]
    guidance_rules: Offers[GuidanceSpec]
    failures: tuple[PluginFailure, ...]
