"""The one place where names of plugins' offers become functions and datasets."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from ddpo_plugins import Catalogue, DetectorSpec, GuidanceSpec, RewardSpec, load_catalogue
from ddpo_plugins.catalogue import Offer
from ddpo_plugins.guarding import plugin_code
from ddpo_plugins.masking import remember_secrets
from ddpo_plugins.origins import ServedElsewhere
from ddpo_plugins.prompt_rows import check_rows

from .errors import ConfigError
from .scoring.functions import DetectorFunction, Function, RewardFunction
from .scoring.provenance import Provenance, options_of

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

logger = logging.getLogger(__name__)

Kwargs = Mapping[str, Mapping[str, Any]]


def reward_from_plugin(
    name: str, *, device: torch.device | str = "cpu", catalogue: Catalogue | None = None, **options: Any
) -> RewardFunction:
    """
    Build the reward that an installed plugin offers as `name`.

    Args:
        name (`str`):
            Its name, as listed by `ddpo rewards`.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`):
            Device for the reward's weights.
        catalogue ([`Catalogue`], *optional*):
            Plugins to look in; by default those that are installed.
        options:
            The reward's own options.

    Raises:
        [`UnknownNameError`]: no plugin offers it; the message names similar ones.
        [`ConfigError`]: it has no such option; the message names those it has.
        [`PluginError`]: the plugin could not build it.
    """
    return _build(_catalogue(catalogue).rewards[name], RewardFunction, device, options)


def detector_from_plugin(
    name: str, *, device: torch.device | str = "cpu", catalogue: Catalogue | None = None, **options: Any
) -> DetectorFunction:
    """
    Build the detector that an installed plugin offers as `name`. Arguments and errors are those of [`reward_from_plugin`].
    """
    return _build(_catalogue(catalogue).detectors[name], DetectorFunction, device, options)


def functions_from_plugins(
    rewards: Iterable[str],
    detectors: Iterable[str],
    kwargs: Kwargs,
    device: torch.device | str,
    catalogue: Catalogue,
) -> tuple[dict[str, RewardFunction], dict[str, DetectorFunction]]:
    """
    Build several rewards and detectors. All names and options are checked before the first is built, which may take long.

    Args:
        rewards, detectors (`Iterable[str]`):
            Their names.
        kwargs (`Mapping[str, Mapping[str, Any]]`):
            Options by name of a reward or detector.
        device (`torch.device` or `str`):
            Device for their weights.
        catalogue ([`Catalogue`]):
            Plugins to look in.

    Returns:
        `tuple`: rewards and detectors, each by name.

    Raises:
        [`UnknownNameError`], [`ConfigError`], [`PluginError`]: as in [`reward_from_plugin`]; or there are options for a name
            that is not used.
    """
    offers = {name: catalogue.rewards[name] for name in rewards}
    watchers = {name: catalogue.detectors[name] for name in detectors}
    _check_names(kwargs, [*offers, *watchers])
    each: list[Offer[RewardSpec] | Offer[DetectorSpec]] = [*offers.values(), *watchers.values()]
    for offer in each:
        check_options(offer, kwargs.get(offer.spec.name, {}))
    return (
        {name: _build(used, RewardFunction, device, kwargs.get(name, {})) for name, used in offers.items()},
        {name: _build(used, DetectorFunction, device, kwargs.get(name, {})) for name, used in watchers.items()},
    )


def check_options(offer: Offer[RewardSpec] | Offer[DetectorSpec], options: Mapping[str, Any]) -> None:
    """
    Refuse options that a factory does not take, without calling it.

    Raises:
        [`ConfigError`]: there is no such option; the message lists those that exist.
    """
    known = options_of(offer.spec.factory)
    if known is None:
        return
    for name in options:
        if name not in known:
            raise ConfigError(
                f"{offer.kind.capitalize()} {offer.spec.name!r} has no option {name!r}{_near(name, known)} It has: "
                f"{', '.join(known) or 'none'}."
            )


def prompts_from_plugin(name: str, catalogue: Catalogue | None = None) -> Dataset:
    """
    Return the prompt set that an installed plugin offers as `name`: a dataset with a `prompt` column.

    Raises:
        [`UnknownNameError`]: no plugin offers it; the message names similar ones.
        [`PluginError`]: the plugin could not make it, or it has other rows than the contract allows.
    """
    from datasets import Dataset

    offer = _catalogue(catalogue).prompt_sets[name]
    with plugin_code(offer, "make", "Correct `rows` if the plugin is yours; if not, upgrade it."):
        return Dataset.from_list(check_rows(offer.spec.rows()))


def guidance_from_plugins(catalogue: Catalogue | None = None) -> tuple[GuidanceSpec, ...]:
    """Return the guidance rules that the installed plugins offer, for `guidance_rules=` of [`DDPOTrainer`]."""
    rules = _catalogue(catalogue).guidance_rules
    return tuple(rules[name].spec for name in rules)


def _catalogue(catalogue: Catalogue | None) -> Catalogue:
    return installed_plugins() if catalogue is None else catalogue


def installed_plugins() -> Catalogue:
    """Load the installed plugins, and log a warning for each that failed, once: the others work."""
    catalogue = load_catalogue()
    for failure in catalogue.failures:
        _warn_once(str(failure))
    return catalogue


@cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def _build(
    offer: Offer[RewardSpec] | Offer[DetectorSpec],
    kind: type[Function],
    device: torch.device | str,
    options: Mapping[str, Any],
) -> Function:
    check_options(offer, options)
    remember_secrets(options)
    # before the factory, which may change its options
    provenance = Provenance.of_plugin(offer.origin, offer.spec.factory, options)
    with plugin_code(offer, "build", f"Check the {offer.kind}'s options and what it needs installed."):
        function = offer.spec.factory(device=device, **options)
    if not callable(function):
        raise ConfigError(
            f"{offer.kind.capitalize()} {offer.spec.name!r} is a {type(function).__name__}; it must be a function. The "
            f"factory of plugin {offer.origin} returned it: a factory gets `device` and options, and returns the function "
            "that is called with images."
        )
    if isinstance(function, ServedElsewhere):
        provenance = replace(provenance, served=function.served)
    return kind(offer.spec.name, function, offer.spec.images, provenance)


def _check_names(kwargs: Kwargs, used: Sequence[str]) -> None:
    for name in kwargs:
        if name not in used:
            raise ConfigError(
                f"reward_kwargs has options for {name!r}, which is not used{_near(name, used)} This run uses: "
                f"{', '.join(used)}."
            )


def _near(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=2)
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else "."
