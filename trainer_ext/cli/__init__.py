"""The command `ddpo`. Each subcommand imports what it needs when it runs, so that help is instant."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from importlib import import_module
from importlib.metadata import version

from ddpo_plugins.distributions import unreadable_distribution
from ddpo_plugins.errors import DDPOError
from ddpo_plugins.hookspecs import PROJECT_NAME

from ..errors import ProcessLostError
from .output import lossy_output
from .screens.faults import is_our_fault, outside_error
from .screens.starting import starting

# For each command, the module that runs it and what it does.
COMMANDS = {
    "train": ("train", "fine-tune a pipeline on rewards"),
    "sample": ("sample", "make images of the same prompts and seeds with and without an adapter"),
    "doctor": ("doctor", "report whether a pipeline can be trained, and why"),
    "audit": ("audit", "find out what cheating a reward pays, before training"),
    "compare": ("pages.compare", "show several runs beside one another in one HTML page"),
    "reproduce": (
        "reproducing.command",
        "train a task of the article on this card, and say PASS, FAIL or INCONCLUSIVE",
    ),
    "report": ("pages.report", "show a run in one HTML page: verdict, curves, pictures, detectors, cost"),
    "export": ("export", "write a run's adapter for ComfyUI, A1111 and others, or merged into its pipeline"),
    "push": ("push", "push a run's adapter and images to the Hub"),
    "serve-reward": ("services.serve_reward", "serve rewards and detectors to trainings in other environments"),
    "rewards": ("list_plugins", "list the rewards, detectors, prompt sets and guidance rules that are installed"),
    "presets": ("listing.presets", "list the presets, or show what one of them sets"),
    "new-plugin": ("new_plugin", "write a plugin project with tests, as a starting point"),
    "env": ("listing.environment", "print versions and devices, for reports of faults"),
    "completion": ("listing.completion", "print a script with which a shell completes commands and names"),
}

DEBUG = "--debug"
INTERRUPTED = 130  # what shells report for Ctrl-C


def usage() -> str:
    """Return the help of the command."""
    commands = "\n".join(f"  {name:<14}{text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: ddpo COMMAND [options]\n\nReinforcement learning on any diffusers text-to-image pipeline, with any reward.\n\n"
        f"commands:\n{commands}\n\n`ddpo COMMAND --help` explains one. `ddpo --version` prints the version. "
        "With --debug,\nerrors show where they come from."
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 if another process died, 2 for a user's mistake, 130 after Ctrl-C."""
    with lossy_output():
        return _run(*((sys.argv[1:] if arguments is None else arguments) or ["--help"]))


def _run(name: str, *rest: str) -> int:
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name in ("-V", "--version"):
        print(f"ddpo-plugins {version('ddpo-plugins')}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        print(f"ddpo: there is no command {name!r}.{hint} `ddpo --help` lists them.", file=sys.stderr)
        return 2
    debug = DEBUG in rest or os.environ.get("DDPO_DEBUG", "") not in ("", "0")
    arguments = [word for word in rest if word != DEBUG]
    try:
        with starting(name, arguments):
            return int(import_module(f".{COMMANDS[name][0]}", __name__).run(arguments))
    except DDPOError as error:
        if debug:
            traceback.print_exc()
        print(f"\nddpo {name}: {error}", file=sys.stderr)
        return 1 if isinstance(error, ProcessLostError) else 2
    except Exception as error:
        failure = unreadable_distribution(error, PROJECT_NAME)
        if failure is None:
            if debug or is_our_fault(error):
                raise
            print(f"\nddpo {name}: {outside_error(error)}", file=sys.stderr)
            return 1
        print(f"\nddpo {name}: {failure} Until then, no package works that reads all metadata.", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"\n{f'ddpo {name}: interrupted {interrupt}'.strip()}.", file=sys.stderr)
        return INTERRUPTED
