"""Options as a page of help: in groups, each once, with the values that it takes and the default that will apply."""

from __future__ import annotations

import argparse
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from ...errors import ConfigError
from ...options import CHOICES

OTHERS = "more options"
METAVARS = {bool: "[BOOL]", int: "N", float: "X", str: "TEXT", dict: "JSON"}

Groups = Mapping[str, Sequence[str]]


class CommandParser(argparse.ArgumentParser):
    """argparse's parser, whose errors are one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Raise the error."""
        raise ConfigError(f"{message}. `{self.prog} --help` says what there is.")


def options_page(
    prog: str,
    usage: str,
    kinds: Sequence[type],
    groups: Groups | None = None,
    defaults: Mapping[str, Any] | None = None,
    origin: str = "",
) -> str:
    """
    Return the help of a command.

    Args:
        prog, usage (`str`):
            Name of the command, and how it is called.
        kinds (`Sequence[type]`):
            Dataclasses of options; of two with the same name, the first is shown.
        groups (`Mapping[str, Sequence[str]]`, *optional*):
            Titles, and the names of the options below each; the others come last.
        defaults (`Mapping[str, Any]`, *optional*):
            Values that apply where nothing is given, if they are not those of the dataclasses.
        origin (`str`, *optional*):
            Where these come from, such as `"preset embedded"`.
    """
    parser = argparse.ArgumentParser(prog=prog, usage=usage, add_help=False, allow_abbrev=False)
    found: dict[str, tuple[Field[Any], Any]] = {}
    for kind in kinds:
        hints = get_type_hints(kind)
        found = {**{item.name: (item, hints[item.name]) for item in fields(kind) if item.init}, **found}
    for title, names in _complete(groups or {}, list(found)):
        group = parser.add_argument_group(title)
        for name in names:
            item, hint = found[name]
            text = _text(item, defaults or {}, origin)
            group.add_argument(f"--{name}", metavar=_metavar(name, hint), help=text.replace("%", "%%"))
    return parser.format_help()


def choices_of(name: str) -> Sequence[str] | None:
    """Return the values that an option takes, if these are names."""
    return CHOICES.get(name)


def _complete(groups: Groups, names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the groups with those of their options that there are, and the group of all others."""
    for title, wanted in groups.items():
        if present := [name for name in wanted if name in names]:
            yield title, present
    grouped = {name for wanted in groups.values() for name in wanted}
    if others := [name for name in names if name not in grouped]:
        yield OTHERS if groups else "options", others


def _metavar(name: str, hint: Any) -> str:
    """Return the form of an option's value: its choices, or its type."""
    if name in CHOICES:
        return f"{{{','.join(CHOICES[name])}}}"
    kinds = [kind for kind in _kinds(hint) if kind is not type(None)]
    if list in map(_origin, kinds):
        (of_list,) = [kind for kind in kinds if _origin(kind) is list]
        return f"{METAVARS.get(_origin(get_args(of_list)[0]), 'TEXT')} ..."
    return METAVARS.get(_origin(kinds[0]), "TEXT")


def _kinds(hint: Any) -> Sequence[Any]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else [hint]


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


def _text(item: Field[Any], defaults: Mapping[str, Any], origin: str) -> str:
    """Return an option's help with its default. That of an option without any is said by its help."""
    own = item.default_factory() if item.default_factory is not MISSING else item.default
    value = defaults.get(item.name, own)
    source = f", {origin}" if origin and item.name in defaults else ""
    shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = str(item.metadata.get("help", ""))
    return text if value is None or value is MISSING or shown == "" else f"{text} (default: {shown}{source})"
