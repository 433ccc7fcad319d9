"""The command line: one stage, or all."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

from .deadline import Deadline, Stopped
from .settings import defaults, workers
from .stages import ALL, STAGES, evaluate_pipeline
from .workshop import Workshop

STOPPED = 3  #: exit status of a command that the same command continues


def main(arguments: list[str] | None = None) -> int:
    """Run one stage or all; return 0 if all is done, 3 if there is more to do."""
    options = _parser().parse_args(arguments)
    deadline = Deadline(options.minutes)
    settings = replace(defaults(), **{name: getattr(options, name) for name in asdict(defaults())})
    shop = Workshop(options.work, settings, deadline, options.icon_sets, options.workers, options.start)
    try:
        _run(shop, ALL if options.stage == "all" else [options.stage], options.pipeline)
    except Stopped as stopped:
        print(f"{stopped} The same command goes on from there.", file=sys.stderr)
        return STOPPED
    return 0


def _run(shop: Workshop, stages: list[str], pipeline: Path | None) -> None:
    for name in stages:
        if name != stages[0] and shop.deadline.passed:
            raise Stopped(f"Stopped before {name}.")
        if name == "evaluate" and pipeline is not None:
            evaluate_pipeline(shop, pipeline)
        else:
            STAGES[name](shop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("embedded_model", description="Make the model that ships with ddpo-plugins.")
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument(
        "--work", type=Path, default=Path("work"), help="folder of all files that stages read and write"
    )
    parser.add_argument("--icon_sets", type=Path, default=Path("node_modules/@iconify-json"), help="read by art")
    parser.add_argument("--minutes", type=float, help="stop after so many, with a checkpoint and exit status 3")
    parser.add_argument("--workers", type=int, default=workers(), help="processes that draw scenes")
    parser.add_argument("--start", type=Path, help="pipeline folder whose weights training begins with")
    parser.add_argument("--pipeline", type=Path, help="evaluate: another folder than the one that export wrote")
    amounts = parser.add_argument_group("amounts", "defaults depend on whether there is a GPU")
    for name, value in asdict(defaults()).items():
        amounts.add_argument(f"--{name}", type=type(value), default=value, help=f"{value}")
    return parser
