"""
Writes the tables of docs/options.md from the options' own help texts, their only source, and from the table of inherited ones.

    python docs/write_options.py
"""

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path

from trainer_ext.cli.audit import AuditOptions
from trainer_ext.cli.doctor import DoctorOptions
from trainer_ext.cli.options import LoraOptions, RunOptions
from trainer_ext.cli.pages.compare import CompareOptions
from trainer_ext.cli.pages.report import ReportOptions
from trainer_ext.cli.reproducing.options import ReproduceOptions
from trainer_ext.cli.sample import SampleOptions
from trainer_ext.inherited import NAMES
from trainer_ext.options import DDPOOptions, TrainerDefaults

PAGE = Path(__file__).with_name("options.md")
KINDS = (
    RunOptions,
    LoraOptions,
    DDPOOptions,
    TrainerDefaults,
    SampleOptions,
    ReproduceOptions,
    ReportOptions,
    CompareOptions,
    AuditOptions,
    DoctorOptions,
)


def table(kind: type) -> str:
    """One row for each option of a dataclass: its name, its default, its help."""
    rows = (f"| `{field.name}` | `{default(field)}` | {cell(field.metadata['help'])} |" for field in fields(kind))
    return "\n".join(["| option | default | |", "|-|-|-|", *rows])


def inherited() -> str:
    """One row for each reason: the options of transformers that it is about."""
    rows = (
        f"| {' '.join(f'`{name}`' for name in names.split())} | {status}: {cell(reason)} |"
        for (status, reason), names in NAMES.items()
    )
    return "\n".join(["| option | here |", "|-|-|", *rows])


def default(field: Field) -> object:
    """Return the default of an option."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def cell(text: str) -> str:
    """A help text as a cell: texts in quotes become code; a bar would end the cell."""
    return re.sub(r"(?<![\w`])'([^']+)'(?!\w)", r"`\1`", text).replace("|", r"\|")


def rewritten(page: str) -> str:
    """Return the page with every table between its two comments made again."""
    for name, rows in {**{kind.__name__: table(kind) for kind in KINDS}, "inherited": inherited()}.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"{PAGE} has no place for {name}: write {begin.strip()}, then {end}.")
        page = f"{before}{begin}\n{rows}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
