"""Finds plugins and collects their offers. No plugin can stop another one, or the program."""

from __future__ import annotations

import difflib
import inspect
import reprlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import EntryPoint
from typing import TypeVar

import pluggy

from . import hookspecs
from .catalogue import Catalogue, Kind, Offer, Offers, Origin, PluginFailure, SpecT
from .distributions import declared_plugins, import_advice, load
from .errors import DuplicateNameError, InvalidSpecError, PluginError, cure_of
from .guarding import unchanged_settings
from .specs import DetectorSpec, GuidanceSpec, PromptSetSpec, RewardSpec

Result = TypeVar("Result")

HOOK_PREFIX = "ddpo_register"  #: with which the names of all hooks begin
MAX_SPECS = 10_000  #: that one hook may return


def load_catalogue() -> Catalogue:
    """
    Load every installed plugin and collect its offers.

    Reads the entry points of the group `ddpo_plugins`. Nothing a plugin does wrong is raised here: it is in
    `failures`, and in the message of the error for an unknown name.

    Returns:
        `Catalogue`: everything on offer.
    """
    manager = new_plugin_manager()
    origins, failures = load_entry_points(manager)
    return collect(manager, origins, failures)


def new_plugin_manager() -> pluggy.PluginManager:
    """Return a manager that knows the hooks and no plugins."""
    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    return manager


def load_entry_points(manager: pluggy.PluginManager) -> tuple[dict[str, Origin], list[PluginFailure]]:
    """
    Register every installed plugin, one by one.

    Returns:
        `tuple[dict[str, Origin], list[PluginFailure]]`: where each registered plugin came from, by its name, and the
        plugins that could not be registered.
    """
    # Not `manager.load_setuptools_entrypoints`: it silently takes the first of two plugins with one name, and stops at
    # the first plugin that fails.
    declared, failures = declared_plugins(hookspecs.PROJECT_NAME)
    claims: dict[str, list[tuple[EntryPoint, Origin]]] = defaultdict(list)
    for entry_point, origin in declared:
        claims[entry_point.name].append((entry_point, origin))
    origins: dict[str, Origin] = {}
    for name, claim in sorted(claims.items()):
        if len(claim) > 1:
            failures += _name_clash([origin for _, origin in claim])
            continue
        ((entry_point, origin),) = claim
        if _attempt(partial(_register, manager, entry_point), origin, failures, import_advice(entry_point, origin)):
            origins[name] = origin
        elif manager.has_plugin(name):
            manager.unregister(
                name=name
            )  # also for pluggy 1.6, which keeps the hooks that it saw before it refused one
    return origins, failures


def collect(
    manager: pluggy.PluginManager,
    origins: Mapping[str, Origin] | None = None,
    failures: Iterable[PluginFailure] = (),
) -> Catalogue:
    """
    Collect the offers of every registered plugin. Plugins that implement an unknown hook are unregistered.

    Parameters:
        manager (`pluggy.PluginManager`):
            A manager from [`new_plugin_manager`], with plugins registered by hand or by [`load_entry_points`].
        origins (`Mapping[str, Origin]`, *optional*):
            Where each plugin came from, by its name. A plugin that is not in it counts as registered by hand.
        failures (`Iterable[PluginFailure]`, *optional*, defaults to `()`):
            Failures so far.

    Returns:
        `Catalogue`: everything on offer, with earlier and new failures.
    """
    origins = origins or {}
    failed = [*failures, *_unregister_misspelt(manager, origins)]
    rewards = _ask(manager.hook.ddpo_register_rewards, "reward", RewardSpec, origins, failed)
    detectors = _ask(manager.hook.ddpo_register_detectors, "detector", DetectorSpec, origins, failed)
    prompt_sets = _ask(manager.hook.ddpo_register_prompts, "prompt set", PromptSetSpec, origins, failed)
    guidance = _ask(manager.hook.ddpo_register_guidance, "guidance rule", GuidanceSpec, origins, failed)
    # Only now are all failures known, and an unknown reward may belong to a plugin that failed in its last hook.
    reward_offers = Offers("reward", rewards, failed)
    detector_offers = Offers("detector", detectors, failed)
    prompt_set_offers = Offers("prompt set", prompt_sets, failed)
    guidance_offers = Offers("guidance rule", guidance, failed)
    clashes = [
        *_clashes(reward_offers),
        *_clashes(detector_offers),
        *_clashes(prompt_set_offers),
        *_clashes(guidance_offers),
    ]
    return Catalogue(reward_offers, detector_offers, prompt_set_offers, guidance_offers, (*failed, *clashes))


def _attempt(work: Callable[[], Result], origin: Origin, failures: list[PluginFailure], advice: str) -> Result | None:
    """Return what a plugin's code returns. If it raises any error or changes settings, record that and return None."""
    try:
        with unchanged_settings():
            return work()
    except KeyboardInterrupt as interrupt:  # the plugin may have hung: name it
        raise KeyboardInterrupt(f"in plugin {origin}") from interrupt
    except BaseException as error:  # a plugin may call sys.exit, and a panic in Rust is no Exception
        failures.append(PluginFailure(*origin, error, f"{cure_of(error)} {advice}".strip()))
        return None


def _register(manager: pluggy.PluginManager, entry_point: EntryPoint) -> bool:
    plugin = load(entry_point)
    undecorated = sorted(_undecorated(manager, plugin))
    if undecorated:
        raise PluginError(
            f"{', '.join(undecorated)} implements no hook. Decorate its function with `@ddpo_plugins.hookimpl`."
        )
    manager.register(plugin, name=entry_point.name)
    if not manager.get_hookcallers(plugin):
        raise PluginError(
            f"{entry_point.value!r} implements no hook. Decorate its function with `@ddpo_plugins.hookimpl` and call "
            f"it {' or '.join(hookspecs.HOOK_NAMES)}."
        )
    return True


def _undecorated(manager: pluggy.PluginManager, plugin: object) -> Iterator[str]:
    """Yield the names of a plugin's functions that are called like hooks and are none."""
    for name, _ in inspect.getmembers_static(plugin, inspect.isfunction):
        if name.startswith(HOOK_PREFIX) and manager.parse_hookimpl_opts(plugin, name) is None:
            yield name


def _name_clash(origins: list[Origin]) -> list[PluginFailure]:
    """Refuse all plugins that share a name, because it is ambiguous."""
    error = DuplicateNameError(f"{' and '.join(map(str, origins))} declare one entry-point name.")
    advice = f"Keep one: {' or '.join(origin.removal for origin in origins)}."
    return [PluginFailure(*origin, error, advice) for origin in origins]


def _unregister_misspelt(manager: pluggy.PluginManager, origins: Mapping[str, Origin]) -> list[PluginFailure]:
    # Not `manager.check_pending`: it raises for all plugins together.
    failures = []
    for name, plugin in manager.list_name_plugin():
        unknown = sorted(
            caller.name
            for caller in manager.get_hookcallers(plugin) or []
            for implementation in caller.get_hookimpls()
            if implementation.plugin_name == name and not caller.has_spec() and not implementation.optionalhook
        )
        if not unknown:
            continue
        manager.unregister(name=name)
        nearest = [difflib.get_close_matches(hook, hookspecs.HOOK_NAMES, n=1, cutoff=0)[0] for hook in unknown]
        error = PluginError(f"{', '.join(unknown)}: no such hook; allowed: {', '.join(hookspecs.HOOK_NAMES)}.")
        advice = " ".join(f"Rename {hook} to {near}." for hook, near in zip(unknown, nearest, strict=True))
        failures.append(PluginFailure(*origins.get(name, Origin(name)), error, advice))
    return failures


def _ask(
    hook: pluggy.HookCaller,
    kind: Kind,
    spec_type: type[SpecT],
    origins: Mapping[str, Origin],
    failures: list[PluginFailure],
) -> list[Offer[SpecT]]:
    """Call one hook of every plugin. What a plugin offers through one hook counts as a whole or not at all."""
    offers: list[Offer[SpecT]] = []
    # Called one by one, not through the hook itself, to know the owner of each offer and to survive each failure.
    for implementation in hook.get_hookimpls():
        origin = origins.get(implementation.plugin_name, Origin(implementation.plugin_name))
        advice = f"Correct {hook.name} if the plugin is yours; if not, upgrade it, or {origin.removal}."
        specs = _attempt(partial(_specs, implementation.function, spec_type, hook.name), origin, failures, advice)
        offers += [Offer(kind, spec, *origin) for spec in specs or ()]
    return offers


def _specs(function: Callable[[], object], spec_type: type[SpecT], hook_name: str) -> list[SpecT]:
    returned = function()
    wanted = f"it must return an iterable of {spec_type.__name__}: `return [{spec_type.__name__}(...)]`."
    if inspect.iscoroutine(returned):
        returned.close()  # or Python warns that it was never awaited
        raise InvalidSpecError(f"{hook_name} is an async function; {wanted} Write `def`.")
    if not isinstance(returned, Iterable):
        raise InvalidSpecError(f"{hook_name} returned {reprlib.repr(returned)}; {wanted}")
    specs: dict[str, SpecT] = {}
    for number, spec in enumerate(returned):
        if number == MAX_SPECS:
            raise InvalidSpecError(f"{hook_name} returned more than {MAX_SPECS} specs; {wanted} Does its iterable end?")
        if not isinstance(spec, spec_type):
            raise InvalidSpecError(f"{hook_name} returned an iterable with {reprlib.repr(spec)} in it; {wanted}")
        if spec.name in specs:
            raise DuplicateNameError(f"{hook_name} returned the name {spec.name!r} twice; names are unique.")
        specs[spec.name] = spec
    return list(specs.values())


def _clashes(offers: Offers[SpecT]) -> list[PluginFailure]:
    return [
        PluginFailure(*offer.origin, offers.clash_error(name), f"Until you do, {name!r} is refused.")
        for name, claim in offers.clashes.items()
        for offer in claim
    ]
