"""The edge where plugin names become functions and datasets, once."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset

from ddpo_plugins import Catalogue, GuidanceSpec, load_catalogue
from ddpo_plugins.errors import PluginError

from .rewards import RewardFunction


def reward_from_plugin(
    name: str, *, device: torch.device | str = "cpu", catalogue: Catalogue | None = None, **options: Any
) -> RewardFunction:
    """
    Build the reward that an installed plugin offers as `name`.

    Args:
        name (`str`):
            As `ddpo rewards` lists it.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`):
            Where the reward loads its weights.
        catalogue ([`Catalogue`], *optional*):
            Plugins to look in; those that are installed by default.
        options:
            The reward's own options.

    Raises:
        [`UnknownNameError`]: no plugin offers it; the message names similar ones.
        [`PluginError`]: the plugin could not build it.
    """
    offer = (load_catalogue() if catalogue is None else catalogue).rewards[name]
    try:
        function = offer.spec.factory(device=device, **options)
    except Exception as error:
        raise PluginError(
            f"Plugin {offer.plugin!r} ({offer.distribution} {offer.version}) could not build reward {name!r}: "
            f"{type(error).__name__}: {error}. Check the reward's options and what it needs installed."
        ) from error
    return RewardFunction(name, function, offer.spec.images)


def prompts_from_plugin(name: str, catalogue: Catalogue | None = None) -> Dataset:
    """
    Return the prompt set that an installed plugin offers as `name`: a dataset with a `prompt` column.

    Raises:
        [`UnknownNameError`]: no plugin offers it; the message names similar ones.
    """
    offer = (load_catalogue() if catalogue is None else catalogue).prompt_sets[name]
    return Dataset.from_list([dict(row) for row in offer.spec.rows()])


def guidance_from_plugins(catalogue: Catalogue | None = None) -> tuple[GuidanceSpec, ...]:
    """Return the guidance rules that the installed plugins offer, for `guidance_rules=` of [`DDPOTrainer`]."""
    rules = (load_catalogue() if catalogue is None else catalogue).guidance_rules
    return tuple(rules[name].spec for name in rules)
