"""`ddpo report`: a run in one HTML page, the verdict first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError
from ...file_names import REPORT_FILE
from ...options import described, option
from ...values import CheckedOptions
from ..parse import parse

PROG = "ddpo report"


@described
@dataclass
class ReportOptions(CheckedOptions):
    """Options of `ddpo report`: of which run, and where to."""

    run: str = option("ddpo-output", "Output folder of a run, finished or not.")
    output: str | None = option(None, "File to write; report.html in the run's folder by default.")
    full: str | None = option(
        None, "Folder to write instead: a page with every prompt at every evaluation, and all pictures as they are."
    )
    votes: list[str] | None = option(None, "Answers that the page for blind votes saved: the report says who won.")


def run(arguments: list[str]) -> int:
    """Run the command."""
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--run", *arguments]
    (options,) = parse((ReportOptions,), arguments, PROG, {})
    if options.output and options.full:
        raise ConfigError("--output names a file and --full a folder: give one of them.")
    from ...report.page import write_report

    folder = Path(options.run)
    output = Path(options.full or options.output or folder / REPORT_FILE)
    written = write_report(folder, output, [Path(file) for file in options.votes or ()], full=bool(options.full))
    print(written.verdict)
    if written.votes is not None:
        print(written.votes)
    print(f"{written.report}   the report")
    if written.vote is not None:
        print(f"{written.vote}   a page for blind votes")
    return 0
