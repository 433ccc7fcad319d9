"""The report of a run: one HTML file, and a page for blind votes beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs.atomic import replacing
from .content import Content
from .facts import RunFacts
from .pictures import Pictures, copied, embedded
from .rendering import render
from .votes import Ballot, VoteResult, count_votes

MAX_BYTES = 15_000_000  #: of a page with its pictures
INDEX, VOTES = "index.html", "vote.html"
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
    """
    facts = RunFacts.read(run)
    ballot = Ballot.of(Content(facts).cards, facts.identity)
    votes = count_votes(ballot, answers) if answers else None
    content = Content(facts, votes, full)
    file = output / INDEX if full else output
    vote = file.with_name(VOTES) if ballot.pairs else None
    context = content.context(None if vote is None else vote.name)
    if full:
        _write(file, _page("report.html.jinja", context, copied(content.files, run, output), BESIDE))
    else:
        write_within_limit(file, "report.html.jinja", context, content.files)
    if vote is not None:
        pictures = [frame.file for pair in ballot.pairs for frame in (pair.left, pair.right) if frame.file]
        page = {"title": "Which picture is better?", "ballot": ballot}
        write_within_limit(vote, "vote.html.jinja", page, pictures)
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


def _write(file: Path, page: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as place:
        place.write_bytes(page.encode("utf-8", "xmlcharrefreplace"))
