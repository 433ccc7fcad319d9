"""`ddpo completion`: a script with which a shell completes commands, options and names."""

from __future__ import annotations

import argparse
from dataclasses import fields
from importlib import import_module

from ..screens.pages import CommandParser, choices_of

SHELLS = ("bash", "zsh", "tcsh")
NOTE = 'For bash: `eval "$(ddpo completion bash)"`, in ~/.bashrc for good; for zsh the same with zsh, in ~/.zshrc.'


def run(arguments: list[str]) -> int:
    """Run the command."""
    parser = CommandParser(prog="ddpo completion", description=f"Print a script for a shell. {NOTE}")
    parser.add_argument("shell", choices=SHELLS, help="The shell.")
    print(script(parser.parse_args(arguments).shell))
    return 0


def script(shell: str) -> str:
    """Return the script for a shell."""
    import shtab

    return str(shtab.complete(all_commands(), shell))


def all_commands() -> argparse.ArgumentParser:
    """Return a parser of all commands, which knows the names that are installed now."""
    from ddpo_plugins import load_catalogue

    from .. import COMMANDS
    from ..parse import preset_files

    catalogue = load_catalogue()
    names = {
        "reward_funcs": list(catalogue.rewards),
        "eval_reward_funcs": list(catalogue.rewards),
        "detectors": list(catalogue.detectors),
        "prompts": list(catalogue.prompt_sets),
        "eval_prompts": list(catalogue.prompt_sets),
        "preset": list(preset_files()),
    }
    parser = argparse.ArgumentParser(prog="ddpo", allow_abbrev=False)
    commands = parser.add_subparsers()
    for command, (_, text) in COMMANDS.items():
        own = commands.add_parser(command, help=text.replace("%", "%%"), description=text.replace("%", "%%"))
        for name in dict.fromkeys(item.name for kind in _options(command) for item in fields(kind) if item.init):
            own.add_argument(f"--{name}", choices=names.get(name) or choices_of(name), nargs="*")
        _add_position(own, command, names)
    return parser


def _options(command: str) -> tuple[type, ...]:
    """Return the dataclasses of a command's options."""
    classes = {
        "train": ("..train", "OPTIONS"),
        "doctor": ("..train", "OPTIONS"),
        "sample": ("..sample", "SampleOptions"),
        "audit": ("..audit", "AuditOptions"),
        "compare": ("..pages.compare", "CompareOptions"),
        "report": ("..pages.report", "ReportOptions"),
        "export": ("..export", "ExportOptions"),
        "push": ("..push", "PushOptions"),
    }
    if command not in classes:
        return ()
    module, name = classes[command]
    found = vars(import_module(module, __package__))[name]
    return found if isinstance(found, tuple) else (found,)


def _add_position(parser: argparse.ArgumentParser, command: str, names: dict[str, list[str]]) -> None:
    """Add what may stand right behind a command."""
    import shtab

    if command in ("sample", "report", "push", "export", "compare", "doctor"):
        parser.add_argument("folder", nargs="*").complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    choices = {
        "rewards": [*names["reward_funcs"], *names["detectors"], *names["prompts"]],
        "audit": names["reward_funcs"],
        "presets": names["preset"],
        "completion": list(SHELLS),
    }
    if command in choices:
        parser.add_argument("name", nargs="*", choices=choices[command])
