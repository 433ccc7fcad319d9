"""`ddpo compare`: several runs beside one another in one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError
from ...options import described, option
from ...values import CheckedOptions
from ..parse import parse

PROG = "ddpo compare"


@described
@dataclass
class CompareOptions(CheckedOptions):
    """Options of `ddpo compare`: which runs, and where to."""

    runs: list[str] | None = option(None, "Output folders of two or more runs; the others are compared with the first.")
    labels: list[str] | None = option(
        None,
        "Label of each run; runs of one label are one curve with a band. By default, runs that differ in their seed alone have "
        "one label.",
    )
    output: str = option("compare.html", "File to write.")


def run(arguments: list[str]) -> int:
    """Run the command."""
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--runs", *arguments]
    (options,) = parse((CompareOptions,), arguments, PROG, {})
    if not options.runs:
        raise ConfigError("No run was given: ddpo compare FOLDER OTHER ...")
    from ...report.comparison_page import write_comparison

    comparison = write_comparison([Path(folder) for folder in options.runs], Path(options.output), options.labels)
    for compared in comparison.runs:
        print(f"{compared.name}: {compared.facts.sentence}")
    print(f"{options.output}   the comparison")
    return 0
