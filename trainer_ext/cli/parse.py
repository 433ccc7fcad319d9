"""From a command line to dataclasses: flags win over --config, which wins over the preset, which wins over defaults."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import yaml
from trl import TrlParser

from ddpo_plugins.masking import masked_message, without_secrets

from ..errors import ConfigError
from ..shipped import EMBEDDED, SHIPPED
from .screens.groups import GROUPS
from .screens.pages import options_page

MAX_VALUES = 10_000  # of a config file; what prints or checks one walks through all


def parse(types: tuple[type, ...], arguments: list[str], prog: str, preset: Mapping[str, Any]) -> tuple[Any, ...]:
    """
    Parse `arguments` into one instance of each dataclass in `types`, with the defaults of `preset`.

    Raises:
        [`ConfigError`]: an option that does not exist (the message suggests similar names), a config file that
            cannot be read, or a value that an option refuses.
    """
    parser = _Parser(types, prog=prog, allow_abbrev=False)
    parser.origin = f"preset {' and '.join(preset_names(arguments))}" if preset else ""
    parser.preset = preset
    unknown = parser.set_defaults_with_config(**preset)
    if unknown:
        raise ConfigError(f"The preset sets {unknown[::2]}, which {prog} does not have.")
    given, flags = _early_parser().parse_known_args(arguments)
    unknown = parser.set_defaults_with_config(**(read_yaml(Path(given.config)) if given.config else {}))
    try:
        _, left_over = parser.parse_known_args([*unknown, *flags])
        if left_over:
            raise ConfigError(
                masked_message(f"Unknown options: {' '.join(left_over)}.") + _suggestions(left_over, parser)
            )
        return tuple(parser.parse_args_into_dataclasses([*unknown, *flags]))
    except ConfigError:
        raise
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from without_secrets(error)


def parse_own(kind: type[Any], arguments: list[str], prog: str) -> tuple[Any, list[str]]:
    """
    Parse the options of one dataclass, for a command that hands on the others; return them, and the arguments that are left.

    Raises:
        [`ConfigError`]: a value that an option refuses.
    """
    parser = _Parser((kind,), prog=prog, allow_abbrev=False)
    try:
        options, others = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    except ConfigError:
        raise
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from without_secrets(error)
    return options, list(others)


def parse_alone(
    kind: type[Any],
    arguments: list[str],
    prog: str,
    own: Collection[str],
    recorded: Mapping[str, Any] | None = None,
) -> Any:
    """
    Parse `arguments` of a command that draws pictures without training: a preset's options, or those that a run recorded, count
    as far as the command has them.

    Args:
        kind (`type`):
            The dataclass of the command's options.
        arguments (`list[str]`):
            The arguments.
        prog (`str`):
            The command.
        own (`Collection[str]`):
            Options that mean something else in a preset, which is of a training.
        recorded (`Mapping[str, Any]`, *optional*):
            Options that a run recorded, instead of a preset's.

    Raises:
        [`ConfigError`]: see [`parse`].
    """
    known = {item.name for item in fields(kind)}.difference(own)
    found = load_preset(arguments) if recorded is None else recorded
    (options,) = parse((kind,), arguments, prog, {name: found[name] for name in known & found.keys()})
    return options


class _Parser(TrlParser):  # type: ignore[misc]
    """A parser whose errors are one sentence without secrets, and whose help has each option once, with its group and default."""

    preset: Mapping[str, Any] = {}
    origin = ""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"(--\w+)/--[\w-]+", r"\1", message)  # each option exists twice, also with hyphens
        raise ConfigError(f"{masked_message(message)}. `{self.prog} --help` says what there is.")

    def format_help(self) -> str:
        return options_page(self.prog, f"{self.prog} [options]", self.dataclass_types, GROUPS, self.preset, self.origin)


def _early_parser() -> argparse.ArgumentParser:
    """Return a parser of the flag that must be known before the others."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    return early


def load_preset(arguments: list[str]) -> dict[str, Any]:
    """Return the defaults of the presets that the arguments or their config file name; where several set one, the last wins."""
    return {key: value for name in preset_names(arguments) for key, value in _read_preset(name).items()}


def preset_names(arguments: list[str]) -> list[str]:
    """
    Return the presets that the arguments or their config file name; by default that of the embedded model, which also comes
    before those that stand over it.
    """
    early = _early_parser()
    early.add_argument("--preset", nargs="+")
    early.add_argument("--model_name_or_path")
    given, _ = early.parse_known_args(arguments)
    config = read_yaml(Path(given.config)) if given.config else {}
    presets = given.preset or config.get("preset")
    model = given.model_name_or_path or config.get("model_name_or_path") or EMBEDDED
    if presets is None and model in SHIPPED:
        presets = EMBEDDED
    names = [presets] if isinstance(presets, str) else presets or []
    over_embedded = any(name.startswith(f"{EMBEDDED}/") for name in names) and EMBEDDED not in names
    return [EMBEDDED] * over_embedded + [name for name in names if name != "none"]


def read_yaml(file: Path) -> dict[str, Any]:
    """
    Read a mapping from a YAML file.

    Raises:
        [`ConfigError`]: there is no such file, or it holds something else, or environment variables.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"The config file {file} cannot be read: {_without_content(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"The config file {file} holds no options; write one `name: value` per line.")
    if any(number > MAX_VALUES for number, _ in enumerate(_values(content))):
        raise ConfigError(
            f"The config file {file} has more than {MAX_VALUES:,} values when its aliases (*name) are written out. Shorten it; "
            "long lists of prompts belong into a file of their own (--prompts FILE)."
        )
    if "env" in content:
        raise ConfigError(
            f"The config file {file} sets environment variables (env), which would affect everything that the program does. "
            "Set them where you start it: NAME=VALUE ddpo ..."
        )
    return content


def _values(content: Any) -> Iterator[Any]:
    """Yield all values inside of others, each as often as it is used: a few aliases of aliases can stand for billions."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        yield value
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _without_content(error: Exception) -> str:
    """Describe an error without the lines of the file that it shows, which may hold a key."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error)
    return f"{error.problem} in line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"


def _read_preset(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(read_preset_text(name)))


def read_preset_text(name: str) -> str:
    """
    Return the YAML of a preset, with its comments.

    Raises:
        [`ConfigError`]: there is none with this name.
    """
    found = preset_files()
    if name not in found:
        raise ConfigError(f"There is no preset {name!r}; there are: {', '.join(found)}, and 'none'.")
    return found[name].read_text(encoding="utf-8")


def preset_files() -> dict[str, Path]:
    """Return the file of each preset by its name."""
    folder = Path(str(files("trainer_ext"))) / "presets"
    found = {file.relative_to(folder).with_suffix("").as_posix(): file for file in folder.rglob("*.yaml")}
    return dict(sorted(found.items()))


def _suggestions(given: list[str], parser: argparse.ArgumentParser) -> str:
    """Suggest existing options whose names are similar to unknown ones. Each exists twice, also with hyphens."""
    known = [name for name in parser._option_string_actions if "-" not in name[2:]]
    unknown = [word.partition("=")[0] for word in given if word.startswith("--")]
    near = {
        word: difflib.get_close_matches(word.replace("-", "_").replace("__", "--", 1), known, n=2) for word in unknown
    }
    hints = [f"{word}: did you mean {' or '.join(matches)}?" for word, matches in near.items() if matches]
    return "".join(f"\n{hint}" for hint in hints)
