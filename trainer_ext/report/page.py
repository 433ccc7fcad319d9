"""The report of a run: one HTML file, and a page for blind votes beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputDirError
from ..file_names import REPORT_FILE, VOTE_FILE
from ..runs.atomic import replacing
from .content import Content
from .facts import RunFacts
from .pictures import Pictures, copied, embedded
from .rendering import render
from .votes import Ballot, VoteResult, count_votes

MAX_BYTES = 15_000_000  #: of a page with its pictures
INDEX = "index.html"  #: of a folder
INSIDE, BESIDE = "data:", "'self' file: data:"  #: where a page's pictures may come from


@dataclass(frozen=True)
class Written:
    """
    What a command wrote.

    Parameters:
        report (`Path`):
            The page.
        vote (`Path`, *optional*):
            The page for blind votes; `None` without pictures to compare.
        verdict (`str`):
            The report's first sentence.
        votes ([`VoteResult`], *optional*):
            What people preferred.
    """

    report: Path
    vote: Path | None
    verdict: str
    votes: VoteResult | None


def write_report(run: Path, output: Path, answers: Sequence[Path] = (), full: bool = False) -> Written:
    """
    Write the report of a run.

    Args:
        run (`Path`):
            The run's folder.
        output (`Path`):
            The file to write; with `full` a folder, which also gets all pictures.
        answers (`Sequence[Path]`):
            Files that the page for votes saved.
        full (`bool`):
            Show every prompt at every evaluation, with the pictures as they are.

    Raises:
        [`ConfigError`]: the folder holds no run, or a file no answers for it.
        [`OutputDirError`]: the page cannot be written.
    """
    file = output / INDEX if full else output
    facts = RunFacts.read(run)
    check_place(file)
    ballot = Ballot.of(Content(facts).cards, facts.identity)
    votes = count_votes(ballot, answers) if answers else None
    content = Content(facts, votes, full)
    vote = file.with_name(VOTE_FILE) if ballot.pairs else None
    context = content.context(None if vote is None else vote.name)
    if full:
        with naming_faults(output):
            pictures = copied(content.files, run, output)
        _write(file, _page("report.html.jinja", context, pictures, BESIDE))
    else:
        write_within_limit(file, "report.html.jinja", context, content.files)
    if vote is not None:
        pairs = [frame.file for pair in ballot.pairs for frame in (pair.left, pair.right) if frame.file]
        page = {"title": "Which picture is better?", "ballot": ballot}
        write_within_limit(vote, "vote.html.jinja", page, pairs)
    return Written(file, vote, content.verdict["sentence"], votes)


def write_within_limit(file: Path, template: str, context: dict[str, Any], files: Sequence[Path]) -> None:
    """
    Write a page with as many of its pictures as go into it.

    Args:
        file (`Path`):
            The page.
        template (`str`):
            Name of its template.
        context (`dict[str, Any]`):
            The values for the template.
        files (`Sequence[Path]`):
            Its pictures; see [`embedded`].
    """
    text = len(
        _page(template, context, Pictures(dict.fromkeys(files, ".")), INSIDE).encode("utf-8", "xmlcharrefreplace")
    )
    _write(file, _page(template, context, embedded(files, max(0, MAX_BYTES - text)), INSIDE))


def _page(template: str, context: dict[str, Any], pictures: Pictures, sources: str) -> str:
    return render(template, {**context, "pictures": pictures, "sources": sources})


def check_place(file: Path) -> None:
    """
    Check that a page can be written, before long work.

    Raises:
        [`OutputDirError`]: it cannot.
    """
    if file.is_dir():
        raise OutputDirError(f"{file} is a folder; name the file to write, such as {file / REPORT_FILE}.")
    with naming_faults(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(file.parent, os.W_OK):
        raise OutputDirError(f"{file} cannot be written: its folder is read-only. Name another place with --output.")


@contextlib.contextmanager
def naming_faults(place: Path) -> Iterator[None]:
    """
    Context manager for writing pages and their pictures.

    Raises:
        [`OutputDirError`]: something cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise OutputDirError(
            f"{place} cannot be written: {error.strerror or error}. Name another place with --output."
        ) from error


def _write(file: Path, page: str) -> None:
    with naming_faults(file), replacing(file) as place:
        place.write_bytes(page.encode("utf-8", "xmlcharrefreplace"))
