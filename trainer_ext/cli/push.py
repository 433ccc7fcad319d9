"""`ddpo push`: a run on the Hub, finished or not, from any process and machine."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, HubAccessError, HubError
from ..options import described, option
from ..values import CheckedOptions
from .parse import parse

PROG = "ddpo push"
PUSH_FAILED = 3


@described
@dataclass
class PushOptions(CheckedOptions):
    """Options of `ddpo push`: what of a run goes where."""

    run: str = option("ddpo-output", "Output folder of a run, finished or not.")
    repo: str | None = option(None, "Repository, user/name or a name of your own; by default that of the folder.")
    adapter: bool = option(False, "Push the adapter with its card and pictures; so does a command that names nothing.")
    dataset: bool = option(False, "Push the images and rewards as a dataset, to the repository's name with -images.")
    all: bool = option(False, "Push both.")
    private: bool = option(False, "Create private repositories.")
    revision: str | None = option(None, "Branch to push to; main by default.")
    update: int | None = option(None, "Push the adapter of the checkpoint after so many updates.")
    checkpoints: str | None = option(
        None, "Also push what the run can be resumed from, without pickles: 'last', or 'all' checkpoints."
    )
    tag: str | None = option(None, "Tag for the state that is pushed.")
    message: str | None = option(None, "First line of the commit.")


def run(arguments: list[str]) -> int:
    """Run the command. Exit status 3 if the Hub could not be reached; everything local is there."""
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--run", *arguments]
    from ..hub.attempts import ABANDONED

    (options,) = parse((PushOptions,), arguments, PROG, {})
    if not Path(options.run).is_dir():
        raise ConfigError(f"{options.run} is no folder; give the output folder of a run.")
    if options.checkpoints not in (None, "last", "all"):
        raise ConfigError(f"--checkpoints is {options.checkpoints!r}; it must be 'last' or 'all'.")
    try:
        status = _push(options)
    except HubAccessError:
        raise
    except HubError as error:
        print(f"ddpo push: {error}. Nothing local is lost; give the same command again later.", file=sys.stderr)
        status = PUSH_FAILED
    if ABANDONED.is_set():  # a request that is never answered would keep the program from its end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _push(options: PushOptions) -> int:
    from ..hub.client import Hub
    from ..hub.push import Push
    from ..runs.folder import RunFolder

    push = Push(
        RunFolder(Path(options.run)),
        options.repo or Path(options.run).resolve().name,
        options.private or None,
        options.revision,
        options.update,
        options.tag,
        options.message,
        options.checkpoints,
    )
    hub = Hub()
    if options.all or (options.adapter and options.dataset):
        adapter, dataset = push.both(hub)
        print(hub.address(dataset, "dataset"), hub.address(adapter), sep="\n")
    elif options.dataset:
        print(hub.address(push.dataset(hub), "dataset"))
    else:
        print(hub.address(push.adapter(hub)))
    return 0
