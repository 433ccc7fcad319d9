"""Finds and imports the entry points of all installed distributions. One that cannot be read hides no other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, EntryPoint, PathDistribution, distributions, entry_points
from itertools import accumulate
from pathlib import Path

from .catalogue import Origin, PluginFailure
from .errors import PluginError, describe


def declared_plugins(group: str) -> tuple[list[tuple[EntryPoint, Origin]], list[PluginFailure]]:
    """
    Find the entry points of a group.

    Returns:
        `tuple[list[tuple[EntryPoint, Origin]], list[PluginFailure]]`: each entry point with its origin, and the distributions
        whose metadata cannot be read.
    """
    found: Iterable[EntryPoint]
    failures: list[PluginFailure] = []
    try:
        found = entry_points(group=group)  # counts a package once that is found twice on the path
    except Exception:  # the metadata of one distribution is broken, which fails them all
        found = list(_one_by_one(group, failures))
    declared = []
    for entry_point in found:
        try:
            declared.append((entry_point, _origin(entry_point)))
        except Exception as error:
            failures.append(_unreadable(entry_point.dist, error))
    return declared, failures


def unreadable_distribution(error: BaseException, group: str) -> PluginFailure | None:
    """
    Return the distribution whose broken metadata raised an error elsewhere: torch and fsspec, too, read the metadata of all
    distributions when they are imported. None if the error is another one.
    """
    failures = declared_plugins(group)[1]
    return next((failure for failure in failures if describe(failure.error) == describe(error)), None)


def load(entry_point: EntryPoint) -> object:
    """
    Import the object that an entry point names.

    Raises:
        [`PluginError`]: it names none, or its module does not exist.
    """
    if entry_point.pattern.match(entry_point.value) is None:
        raise PluginError(
            f"its entry point is {entry_point.name!r} = {entry_point.value!r}; the value must be a module, such as "
            "'ddpo_redness'. Correct it in the plugin's pyproject.toml, and install the plugin again."
        )
    try:
        return entry_point.load()
    except ModuleNotFoundError as error:
        if error.name is None or error.name not in _with_parents(entry_point.module):
            raise  # of something that the module imports
        raise PluginError(
            f"its entry point names the module {entry_point.module!r}, and there is no module {error.name!r}. Correct "
            f"{entry_point.name!r} in the plugin's pyproject.toml, and install the plugin again."
        ) from error


def _with_parents(module: str) -> list[str]:
    return list(accumulate(module.split("."), "{}.{}".format))


def import_advice(entry_point: EntryPoint, origin: Origin) -> str:
    """Return what users can do about a plugin that cannot be imported, as a sentence."""
    if entry_point.pattern.match(entry_point.value) is None:
        return f"Or {origin.removal}."
    return f"`python -c 'import {entry_point.module}'` shows where; upgrade it, or {origin.removal}."


def _origin(entry_point: EntryPoint) -> Origin:
    """Return the origin of an entry point, by the metadata of its distribution."""
    if entry_point.dist is None:
        return Origin(entry_point.name)
    name, version = entry_point.dist.name, entry_point.dist.version
    if not isinstance(name, str) or not isinstance(version, str):
        raise ValueError(f"its metadata has the name {name!r} and the version {version!r}")
    return Origin(entry_point.name, name, version)


def _one_by_one(group: str, failures: list[PluginFailure]) -> Iterator[EntryPoint]:
    """Yield the entry points of the distributions that can be read, the first of each name."""
    seen = set()
    for distribution in distributions():
        name = re.sub("[-_.]+", "-", _by_folder(distribution).plugin).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            entries = list(distribution.entry_points)
        except Exception as error:
            failures.append(_unreadable(distribution, error))
        else:
            yield from (entry for entry in entries if entry.group == group)


def _unreadable(distribution: Distribution | None, error: Exception) -> PluginFailure:
    origin = _by_folder(distribution)
    place = _folder(distribution)
    advice = f"The metadata of {origin.plugin} cannot be read: install it again, or remove {place or 'it'}."
    return PluginFailure(*origin, error, advice)


def _by_folder(distribution: Distribution | None) -> Origin:
    """Return name and version by the name of the folder with the metadata: `name-version.dist-info`."""
    folder = _folder(distribution)
    if folder is None:
        return Origin("unknown" if distribution is None else str(distribution.name))
    parts = re.fullmatch(r"(.+?)-([0-9][^-]*)(-py.*)?", folder.stem)
    name, version = (parts[1], parts[2]) if parts else (folder.stem, "of unknown version")
    return Origin(name, name, version)


def _folder(distribution: Distribution | None) -> Path | None:
    if isinstance(distribution, PathDistribution):
        return Path(str(distribution._path))  # no public name; `distribution.metadata`, which may be broken, has none
    return None
