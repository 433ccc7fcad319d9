"""The page for blind votes, and what answers to it say."""

import json
import math

import pytest
from support.html_pages import page
from support.synthetic_runs import SyntheticRun

from trainer_ext.cli import main
from trainer_ext.report.content import Content
from trainer_ext.report.facts import RunFacts
from trainer_ext.report.votes import Ballot

ANIMALS = tuple(f"animal {index}" for index in range(24))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = SyntheticRun(seen=ANIMALS, unseen=(), evaluations=2, rollouts=1, side=8).write(
        tmp_path_factory.mktemp("votes") / "run"
    )
    assert main(["report", str(run.path)]) == 0
    return run


@pytest.fixture(scope="module")
def ballot(run):
    facts = RunFacts.read(run.path)
    return Ballot.of(Content(facts).cards, facts.identity)


@pytest.fixture
def answered(tmp_path, ballot):
    """A file of answers, one for each pair from the first: for the trained model, the other or neither."""

    def answered(choices, name="votes.json", **changes):
        other = {"left": "right", "right": "left"}
        votes = {
            pair.name: {"trained": pair.trained, "base": other[pair.trained], "neither": "neither"}[choice]
            for pair, choice in zip(ballot.pairs, choices, strict=False)
        }
        (tmp_path / name).write_text(json.dumps({"ballot": ballot.name, "votes": votes, **changes}))
        return tmp_path / name

    return answered


def test_the_page_does_not_say_which_side_is_which(run, ballot):
    vote = page(run.path / "vote.html")
    form = vote.one("form")
    assert form.attributes["data-ballot"] == ballot.name
    pairs = list(form.all("fieldset"))
    assert [pair.one("legend").text for pair in pairs] == [f"{i}. {name}" for i, name in enumerate(ANIMALS, 1)]
    sheets = run.evaluations()["seen"]
    sides = []
    for row, pair in enumerate(pairs):
        left, right = (image.attributes["src"] for image in pair.all("img"))
        assert {image.attributes["alt"] for image in pair.all("img")} == {"left", "right"}
        sides.append(_is_of(left, sheets[1].files[row]))
        assert sides[-1] != _is_of(right, sheets[1].files[row])
    assert sides == [pair.trained == "left" for pair in ballot.pairs]
    assert 4 <= sum(sides) <= 20  # two-sided p of 24 fair coins outside: 0.0003
    words = vote.one("main").text.lower()
    assert not [word for word in ("base", "trained", "reward", "update", "seed", "checkpoint") if word in words]


def _is_of(address, file):
    import base64

    return base64.b64decode(address.split(",")[1]) == file.read_bytes()


def test_the_win_rate_has_wilsons_interval(run, answered, capsys):
    """12 of 16: by hand, with z = 1.96, centre (0.75 + z^2/32) / (1 + z^2/16)."""
    first = answered(["trained"] * 10 + ["base"] * 2 + ["neither"] * 3, "first.json")
    second = answered(["trained"] * 2 + ["base"] * 2, "second.json")
    assert main(["report", str(run.path), "--votes", str(first), str(second)]) == 0
    z, p, n = 1.959964, 12 / 16, 16
    centre, scale = (p + z**2 / (2 * n)) / (1 + z**2 / n), 1 + z**2 / n
    margin = z / scale * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    said = (
        f"The trained model won 12 of 16 blind votes: 75%, Wilson's 95 % interval {centre - margin:.0%} to "
        f"{centre + margin:.0%}. 3 more for neither; 2 files of answers."
    )
    assert said in capsys.readouterr().out
    assert page(run.path / "report.html").one("section", id="people").one("p").text == said


def test_only_undecided(run, answered, capsys):
    assert main(["report", str(run.path), "--votes", str(answered(["neither"] * 3))]) == 0
    assert "Nobody preferred one side: 3 answers for neither." in capsys.readouterr().out


WRONG = {
    "another ballot": ({"ballot": "0123"}, "answer another page"),
    "no answers": ({"votes": None}, "are damaged"),
    "an unknown pair": ({"votes": {"0": "left"}}, "are damaged"),
    "an unknown side": ({"votes": {"": "up"}}, "are damaged"),
    "a side that is a list": ({"votes": {"": ["left"]}}, "are damaged"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_other_answers_are_refused(run, ballot, answered, capsys, wrong):
    changes, said = WRONG[wrong]
    if isinstance(changes.get("votes"), dict) and "" in changes["votes"]:
        changes = {"votes": {ballot.pairs[0].name: changes["votes"][""]}}
    assert main(["report", str(run.path), "--votes", str(answered([], **changes))]) == 2
    message = capsys.readouterr().err.strip()
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "\x00", "[" * 100_000])
def test_files_that_hold_no_answers(run, tmp_path, capsys, content):
    (tmp_path / "votes.json").write_text(content)
    assert main(["report", str(run.path), "--votes", str(tmp_path / "votes.json")]) == 2
    assert "votes" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_file_that_is_not_there(run, tmp_path, capsys):
    assert main(["report", str(run.path), "--votes", str(tmp_path / "votes.json")]) == 2
    assert "cannot be read (FileNotFoundError)" in capsys.readouterr().err


def test_answers_to_a_run_that_went_on_are_refused(run, answered, capsys, tmp_path):
    """The pictures that were compared are no longer those that would be."""
    import shutil

    longer = shutil.copytree(run.path, tmp_path / "run")
    for file in sorted((longer / "evaluations" / "seen").glob("update-00002*")):
        shutil.move(file, file.with_name(file.name.replace("02", "04")))
    assert main(["report", str(longer), "--votes", str(answered(["trained"]))]) == 2
    assert "answer another page" in capsys.readouterr().err


def test_there_is_no_vote_without_two_pictures_to_compare(tmp_path, capsys):
    run = SyntheticRun(evaluations=1, rollouts=1).write(tmp_path / "run")
    assert main(["report", str(run.path)]) == 0
    assert not (run.path / "vote.html").exists()
    assert "blind votes" not in capsys.readouterr().out
