"""
Hooks a plugin may implement: decorate a function of the same name with `@hookimpl`.

All hooks are called once per process, on every rank, when the catalogue is built; the order among plugins is not
specified. They must be cheap and must not touch a GPU or the network: declare factories, load nothing.

A hook that raises an error, or returns something other than an iterable of the right specs, offers nothing: this is recorded
in [`Catalogue.failures`] under the plugin's name. Other hooks and plugins are not affected.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from .specs import DetectorSpec, GuidanceSpec, PromptSetSpec, RewardSpec

PROJECT_NAME = "ddpo_plugins"  #: pluggy project and entry-point group

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


@hookspec
def ddpo_register_rewards() -> Iterable[RewardSpec]:
    """
    Declare the rewards this plugin offers.

    Called once per process, when the catalogue is built, whether or not a reward of this plugin is used.

    Returns:
        `Iterable[RewardSpec]`: one per reward. Empty if there is none to offer in this environment.

    Raises:
        Anything: recorded as this plugin's failure; its rewards are then unknown, and asking for one says why.
    """
    return ()


@hookspec
def ddpo_register_detectors() -> Iterable[DetectorSpec]:
    """
    Declare the detectors of reward hacking this plugin offers.

    Called once per process, when the catalogue is built, whether or not a detector of this plugin is used.

    Returns:
        `Iterable[DetectorSpec]`: one per detector. Empty if there is none to offer in this environment.

    Raises:
        Anything: recorded as this plugin's failure; its detectors are then unknown, and asking for one says why.
    """
    return ()


@hookspec
def ddpo_register_prompts() -> Iterable[PromptSetSpec]:
    """
    Declare the prompt sets this plugin offers.

    Called once per process, when the catalogue is built, whether or not a prompt set of this plugin is used.

    Returns:
        `Iterable[PromptSetSpec]`: one per prompt set. Empty if there is none to offer in this environment.

    Raises:
        Anything: recorded as this plugin's failure; its prompt sets are then unknown, and asking for one says why.
    """
    return ()


@hookspec
def ddpo_register_guidance() -> Iterable[GuidanceSpec]:
    """
    Declare the guidance rules this plugin offers, for pipelines whose own rule the trainer does not know.

    Called once per process, when the catalogue is built, whether or not a rule of this plugin is used.

    Returns:
        `Iterable[GuidanceSpec]`: one per rule. Empty if there is none to offer in this environment.

    Raises:
        Anything: recorded as this plugin's failure; its rules are then unknown, and asking for one says why.
    """
    return ()


HOOK_NAMES = tuple(
    hook.__name__
    for hook in (ddpo_register_rewards, ddpo_register_detectors, ddpo_register_prompts, ddpo_register_guidance)
)
