"""`ddpo compare`: several runs beside one another."""

import shutil

import numpy as np
import pytest
from support.html_pages import page
from support.synthetic_runs import SETUP, SyntheticRun

from trainer_ext.cli import main
from trainer_ext.report.drawing.learning_curves import Curve, on_one_grid
from trainer_ext.runs.measures.paired import bootstrapped_figure


def with_seed(seed, **setup):
    return {**setup, "options": {**SETUP["options"], "seed": seed}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of one algorithm, and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        SyntheticRun(seed=0, evaluations=3, setup=with_seed(0)).write(folder / "is-0"),
        SyntheticRun(seed=1, evaluations=3, setup=with_seed(1)).write(folder / "is-1"),
        SyntheticRun(seed=2, evaluations=4, setup=with_seed(0, algorithm="ScoreFunction()")).write(folder / "sf"),
    ]


@pytest.fixture(scope="module")
def shown(runs):
    file = runs[0].path.parent / "compare.html"
    assert main(["compare", *(str(run.path) for run in runs), "--output", str(file)]) == 0
    return page(file)


@pytest.fixture
def compare(tmp_path):
    def compare(*runs, options=()):
        file = tmp_path / "compare.html"
        folders = [str(getattr(run, "path", run)) for run in runs]
        assert main(["compare", *folders, "--output", str(file), *options]) == 0
        return page(file)

    return compare


def test_runs_that_differ_in_their_seed_have_one_curve(shown):
    assert [row[:2] for row in shown.one("section", id="runs").one("table").rows()] == [
        ["is-0", "is"],
        ["is-1", "is"],
        ["sf", "sf"],
    ]
    legend = [text.text for text in shown.one("section", id="curves").all("text")]
    plots = len(list(shown.one("section", id="curves").all("figure")))
    assert plots == 5
    assert (legend.count("is (mean of 2)"), legend.count("sf")) == (plots, plots)


def test_labels_of_ones_own(compare, runs):
    shown = compare(*runs, options=("--labels", "all", "all", "all"))
    assert {row[1] for row in shown.one("section", id="runs").one("table").rows()} == {"all"}
    assert "all (mean of 3)" in {text.text for text in shown.all("text")}


def test_differences_are_of_the_same_images(shown, runs):
    tables = list(shown.one("section", id="differences").all("table"))
    assert [table.attributes["aria-label"] for table in tables] == ["is-1 and is-0", "sf and is-0"]
    ends = [[run.evaluations()[name][-1].records for name in ("seen", "unseen")] for run in (runs[0], runs[2])]
    values = np.array([[record["rewards/embedded_judge"] for part in end for record in part] for end in ends]).T
    expected = bootstrapped_figure(values)
    judge = next(row for row in tables[1].rows() if row[0] == "embedded_judge (held-out reward)")
    numbers = [f"{expected.before:.4g}", f"{expected.after:.4g}", f"{expected.difference:+.4g}"]
    assert judge[1:] == [*numbers, f"{expected.low:+.4g} to {expected.high:+.4g}", "5"]


def test_pictures_stand_side_by_side(shown):
    cards = list(shown.one("section", id="pictures").all("article"))
    assert [card.one("h3").text for card in cards] == ["a cat", "a dog", "a lion", "a bear", "an otter"]
    for card in cards:
        assert [name.text for name in card.all("b")] == ["base model", "is-0", "is-1", "sf"]
        assert len(list(card.all("img"))) == 4


def test_rewards_of_different_tasks_are_not_compared(compare, runs, tmp_path):
    other = SyntheticRun(seed=4, evaluations=2, setup={"rewards": {"jpeg_incompressibility": {}}}).write(
        tmp_path / "other"
    )
    shown = compare(runs[0], other)
    assert "their rewards cannot be compared" in shown.one("section", id="runs").text
    rows = [row[0] for row in shown.one("section", id="differences").one("table").rows()]
    assert rows == ["embedded_judge (held-out reward)", "typographic_attack (detector)", "blank_or_noise (detector)"]


def test_runs_without_evaluations_are_compared_by_their_fixed_samples(compare, runs, tmp_path):
    import shutil

    copied = shutil.copytree(runs[1].path, tmp_path / "copied")
    shutil.rmtree(copied / "evaluations")
    shown = compare(runs[0], copied)
    assert [card.one("h3").text for card in shown.all("article")] == ["a cat", "a dog", "a lion", "a bear"]
    assert next(shown.one("section", id="differences").one("table").rows())[-1] == "4"
    assert len(list(shown.one("section", id="curves").all("figure"))) == 1


def test_runs_that_have_nothing_in_common(compare, runs, tmp_path):
    other = SyntheticRun(seen=("a car",), unseen=(), evaluations=2, rollouts=0, samples=False).write(tmp_path / "other")
    text = compare(runs[0], other).one("main").text
    assert "scored no image of the same prompt and seed" in text
    assert "drew no image of the same prompt and seed" in text


def test_runs_of_the_same_name(compare, runs, tmp_path):
    other = SyntheticRun(seed=4, evaluations=2, rollouts=1).write(tmp_path / "is-0")
    names = [row[0] for row in compare(runs[0], other).one("section", id="runs").one("table").rows()]
    assert names == [str(runs[0].path), str(other.path)]


@pytest.mark.parametrize(
    ("number", "options", "said"),
    [
        (0, (), "No run was given"),
        (1, (), "give the folders of two or more runs"),
        (2, ("--labels", "a"), "--labels has 1 labels for 2 runs"),
    ],
)
def test_what_cannot_be_compared(runs, tmp_path, capsys, number, options, said):
    folders = [str(run.path) for run in runs[:number]]
    assert main(["compare", *folders, "--output", str(tmp_path / "compare.html"), *options]) == 2
    message = capsys.readouterr().err.strip()
    assert said in message
    assert "\n" not in message


def test_a_damaged_setup_is_said_in_one_sentence(compare, runs, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    shutil.copytree(runs[0].path, damaged)
    (damaged / "run.json").write_text('{"runs": [')
    text = compare(runs[0], damaged).one("section", id="runs").text
    said = "damaged: Not judged: run.json, which says what was trained, is missing or cannot be read."
    assert said in text
    assert f"{said}\n" in capsys.readouterr().out
    assert "different rewards" not in text


def test_a_folder_that_is_no_run(runs, tmp_path, capsys):
    assert main(["compare", str(runs[0].path), str(tmp_path)]) == 2
    assert f"{tmp_path} holds no run" in capsys.readouterr().err


def test_curves_meet_where_all_of_them_were_measured():
    """Between two places, a curve is straight; NaN is left out."""
    first = Curve(np.array([0.0, 2.0, 4.0]), np.array([0.0, 2.0, 4.0]))
    second = Curve(np.array([1.0, 2.0, 3.0, 5.0]), np.array([10.0, np.nan, 30.0, 50.0]))
    places, values = on_one_grid([first, second])
    assert places.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert values.tolist() == [[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]]


NOTHING, EARLY, LATE = (Curve(np.array([place]), np.array([value])) for place, value in ((0, np.nan), (1, 1), (2, 3)))


@pytest.mark.parametrize(
    ("curves", "shape"), [([NOTHING], (0, 0)), ([NOTHING, EARLY], (1, 1)), ([EARLY, LATE], (2, 0))]
)
def test_curves_without_a_common_place(curves, shape):
    """A run without a value is left out; runs that were never at one place have no mean."""
    places, values = on_one_grid(curves)
    assert places.shape == shape[1:]
    assert values.shape == shape
