"""`ddpo serve-reward`: rewards and detectors for trainings in other environments. Imports nothing heavy."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from ddpo_plugins.wire import TOKEN

from ...errors import ConfigError
from ...options import parse_mapping
from ...plugins import functions_from_plugins, installed_plugins
from ..screens.pages import CommandParser

PROG = "ddpo serve-reward"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = CommandParser(
        prog=PROG,
        description="Serve rewards and detectors over HTTP to trainings in other environments or on other machines, which reach "
        "them by the reward or detector `remote`.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="Rewards and detectors; `ddpo rewards` lists them.")
    parser.add_argument(
        "--reward_kwargs", default="{}", help='Their options by name, as JSON: \'{"my_reward": {"scale": 2}}\'.'
    )
    parser.add_argument("--device", default="auto", help="Device for their weights; 'auto' is a GPU if there is one.")
    parser.add_argument(
        "--host", default="127.0.0.1", help=f"Address to listen at. Any other than this machine's own needs {TOKEN}."
    )
    parser.add_argument("--port", type=_port, default=8900, help="Port to listen at; 0 for any that is free.")
    parser.add_argument("--max_waiting", type=_positive, default=32, help="Batches that may wait; more are refused.")
    parser.add_argument("--max_megabytes", type=_positive, default=256, help="Largest request, in MB.")
    return parser


def run(arguments: list[str]) -> int:
    """Run the command, until it is stopped."""
    options = make_parser().parse_args(arguments)
    try:
        from ...serving.app import build_app
        from ...serving.run import check_reach, listen, make_server, serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"{PROG} needs {error.name}: pip install 'ddpo-plugins[serve]'.") from error
    token = os.environ.get(TOKEN) or None
    check_reach(options.host, token)
    kwargs = parse_mapping("reward_kwargs", options.reward_kwargs)
    with listen(options.host, options.port) as place:
        functions = build_functions(options.names, kwargs, choose_device(options.device))
        app = build_app(
            functions, max_waiting=options.max_waiting, max_bytes=options.max_megabytes * 10**6, token=token
        )
        names = ", ".join(str(each.function) for each in functions)
        serve(make_server(app), place, lambda url: print(f"{names} at {url}; Ctrl-C stops", flush=True))
    return 0


def build_functions(names: Sequence[str], kwargs: Mapping[str, Any], device: str) -> list[Any]:
    """
    Build what is served: everything that is offered under the names.

    Raises:
        [`UnknownNameError`], [`ConfigError`], [`PluginError`]: see [`functions_from_plugins`].
    """
    from ...scoring.threads import EventLoop
    from ...serving.functions import ServedFunction

    catalogue = installed_plugins()
    detectors = [name for name in names if name in catalogue.detectors]
    rewards = [name for name in names if name in catalogue.rewards or name not in detectors]
    built, watching = functions_from_plugins(rewards, detectors, kwargs, device, catalogue)
    loop = EventLoop()
    return [ServedFunction(function, device, loop) for function in (*built.values(), *watching.values())]


def choose_device(asked: str) -> str:
    """Return the device that `auto` stands for, without torch where there is none."""
    if asked != "auto":
        return asked
    if find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not between 0 and 65535")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number
