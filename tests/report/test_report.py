"""`ddpo report`: what the page of a run says, for runs that are whole and for those that are not."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.html_pages import page
from support.synthetic_runs import SyntheticRun

from trainer_ext.cli import main
from trainer_ext.report import gallery
from trainer_ext.report import page as pages
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.manifest import write_manifest
from trainer_ext.runs.records import write_records

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</textarea></style></script> & &lt;b&gt;",
    "costs $5 and $6, {{ 7 * 7 }} {% raw %}",
    "日本語の猫、犬",
    "tab\tand\nline",
    "x" * 10_000,
)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run with everything. Tests copy it before they change anything."""
    return SyntheticRun().write(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="session")
def reported(whole):
    assert main(["report", str(whole.path), "--output", str(whole.path.parent / "report.html")]) == 0
    return page(whole.path.parent / "report.html")


@pytest.fixture
def report(tmp_path):
    """Report a folder, and return the page."""

    def report(folder, *options):
        file = tmp_path / "page" / "report.html"
        assert main(["report", str(getattr(folder, "path", folder)), "--output", str(file), *options]) == 0
        return page(file)

    return report


def test_the_verdict_comes_first(reported):
    sections = [section.attributes["id"] for section in reported.all("section")]
    assert sections == [
        "verdict",
        "figures",
        "curves",
        "pictures",
        "prompts",
        "detectors",
        "optimiser",
        "cost",
        "provenance",
    ]
    assert [link.attributes["href"] for link in reported.one("nav").all("a")] == [f"#{name}" for name in sections]


def test_nothing_is_fetched_and_no_other_script_runs(reported):
    policy = reported.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    (script,) = [element.children[0] for element in reported.all("script")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    for element in reported.all():
        assert not [name for name in element.attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert (element.attributes.get(name) or "#").startswith(("#", "data:", "vote.html"))
    assert "url(" not in reported.one("style").children[0]


def test_prompts_that_were_trained_on_stand_apart(reported, whole):
    """Each row's difference is that of the records, and the worst comes first."""
    seen, unseen = reported.one("section", id="prompts").all("table")
    assert ([row[1] for row in seen.rows()], [row[1] for row in unseen.rows()]) == (["seen"] * 4, ["unseen"])
    first, *_, last = whole.evaluations()["seen"]
    expected = sorted(
        (after["reward"] - before["reward"], after["prompt"])
        for before, after in zip(first.records, last.records, strict=True)
    )
    rows = list(seen.rows())
    assert [row[0] for row in rows] == [prompt for _, prompt in expected]
    assert [float(row[4]) for row in rows] == pytest.approx([difference for difference, _ in expected])
    assert {float(row[-1]) for row in rows} == {0.9}


def test_seen_and_unseen_have_intervals(reported):
    seen, unseen = list(reported.one("section", id="figures").all("table"))[1:]
    reward, judge, *_ = seen.rows()
    assert judge[0] == "embedded_judge (held-out reward)"
    low, high = map(float, reward[4].split(" to "))
    assert low < float(reward[3]) < high
    assert reward[5] == "4"
    assert next(unseen.rows())[4:] == ["–", "1"]


def test_curves_are_over_queries_and_over_the_root_of_the_divergence(reported):
    titles = [figure.one("figcaption").text for figure in reported.one("section", id="curves").all("figure")]
    each = [
        "Gain over the base model against images scored for training",
        "Gain over the base model against square root of the KL divergence to the base model (nats an image)",
        "Other measures against updates",
    ]
    assert titles[:6] == each * 2
    words = {text.text for text in reported.all("text")}
    assert {"trained reward (proxy)", "held-out rewards (gold)", "disagreement", "pixels/darkness"} <= words


def test_every_prompt_is_shown_through_training(reported, whole):
    cards = list(reported.all("article"))
    assert [card.one("h3").text for card in cards] == ["a cat", "a dog", "a lion", "a bear", "an otter"]
    for card in cards:
        frames = sorted(card.all("figure"), key=lambda frame: int(frame.attributes["data-updates"]))
        assert [frame.attributes["data-updates"] for frame in frames] == ["0", "2", "4", "6", "8"]
        assert [frame.one("b").text for frame in frames if list(frame.all("b"))] == ["base model", "last"]
    (first, *_) = cards[0].all("img")
    assert decoded(first) == whole.evaluations()["seen"][0].files[0].read_bytes()


def decoded(image):
    prefix, content = image.attributes["src"].split(",")
    assert prefix == "data:image/webp;base64"
    return base64.b64decode(content)


def test_offenders_have_their_evidence(reported):
    detectors = reported.one("section", id="detectors")
    worst, *_ = [figure for figure in detectors.all("figure") if list(figure.all("dl"))]
    assert worst.one("figcaption").one("b").text == "0.9"
    assert worst.one("dl").text == "text a cat!"
    assert Image.open(io.BytesIO(decoded(worst.one("img")))).size == (16, 16)
    scores = [float(f.one("figcaption").one("b").text) for f in detectors.all("figure") if list(f.all("dl"))]
    assert scores == sorted(scores, reverse=True)


def test_offenders_of_rollouts_where_evaluations_have_none(report, tmp_path):
    """With their pictures, where these were kept."""
    run = SyntheticRun(unseen=(), evaluations=1, rollouts=3, samples=False).write(tmp_path / "run")
    rows = [{**row, "detectors/low_diversity": 0.5 if index == 3 else 0.1} for index, row in enumerate(run.records(2))]
    write_records(run.rollout_file(2), rows)
    change_setup(run, detectors={"low_diversity": {}})
    shown = report(run).one("section", id="detectors").one("div", cls="offenders")
    first = next(shown.all("figure"))
    assert first.one("figcaption").text == "0.5 a bearrollout 2, seed 19"  # two lines
    assert first.one("span", cls="no-picture")
    run.kept_images(2).mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(run.kept_images(2) / "00003.png")
    (picture,) = report(run).one("section", id="detectors").one("div", cls="offenders").all("img")
    assert Image.open(io.BytesIO(decoded(picture))).size == (8, 8)


def test_the_optimiser_is_drawn_by_denoising_step(reported):
    """Colours of the ratio: brown, the lowest, where the step is late and the rollout early."""
    figures = [figure for figure in reported.one("section", id="optimiser").all("figure") if list(figure.all("image"))]
    titles = [figure.one("figcaption").text for figure in figures]
    assert [title.split(",")[0] for title in titles] == [
        "Mean ratio of the new policy to the one that sampled",
        "log10 of the KL divergence from the policy that sampled",
        "Share of clipped ratios",
    ]
    (pixels, *_) = figures[0].all("image")
    image = Image.open(io.BytesIO(base64.b64decode(pixels.attributes["xlink:href"].split(",")[1]))).convert("RGB")
    assert image.size == (4, 5)
    lowest, middle = (image.getpixel(place) for place in ((0, 4), (0, 0)))
    assert lowest == (127, 59, 8)
    assert min(middle) > 240


def test_cost_and_the_command_that_repeats_the_run(reported):
    assert {row[0]: row[1] for row in reported.one("section", id="cost").one("table").rows()} == {
        "sampling for training": "12 s",
        "waiting for rewards": "2 s",
        "training": "24 s",
        "evaluation": "8 s",
    }
    assert "32 images were scored for training, on cpu, 1 process." in reported.one("section", id="cost").text
    command = reported.one("section", id="provenance").one("pre").text
    assert command == "ddpo train --reward_funcs jpeg_compressibility --output_dir run"


def test_prompts_are_text(report, tmp_path):
    run = SyntheticRun(seen=HOSTILE, unseen=(), evaluations=2, rollouts=1, images=1).write(tmp_path / "run")
    shown = report(run)
    for card, prompt in zip(shown.all("article"), HOSTILE, strict=True):
        assert "".join(prompt.split()) in "".join(card.one("h3").text.split())
    assert len(list(shown.all("script"))) == 1
    assert not [image for image in shown.all("img") if not image.attributes["src"].startswith("data:")]


def test_characters_that_cannot_be_seen_are_marked(report, tmp_path):
    run = SyntheticRun(seen=("a\u202ecat\x07",), unseen=(), evaluations=1, rollouts=1, images=1).write(tmp_path / "run")
    assert report(run).one("article").one("h3").text == "a�cat�"


NAME = "<b>&'\"$x$</b> 猫"


def test_names_are_text(report, tmp_path):
    """Of rewards, detectors, datasets, evidence and everything in run.json, also with half of a character."""
    setup = {
        "rewards": {NAME: {}},
        "eval_rewards": {NAME: {}},
        "detectors": {NAME: {}},
        "command": f"ddpo {NAME} \ud800",
        "options": {NAME: NAME},
    }
    run = SyntheticRun(evaluations=0, rollouts=0, samples=False, setup=setup).write(tmp_path / "run")
    for updates in (0, 3):
        rows = [
            {
                "updates": updates,
                "rollouts": 1.0,
                "row": row,
                "seed": row,
                "prompt": "a cat",
                "reward": 0.5 * row,
                f"rewards/{NAME}": 0.1 * row,
                f"detectors/{NAME}": 0.5,
                f"{NAME}/{NAME}": NAME,
                "kl": 1.0 * updates + row,
            }
            for row in range(2)
        ]
        write_records(run.evaluation_file(NAME, updates), rows)
    shown = report(run)
    spaced = " ".join(NAME.split())
    assert {evidence.text for evidence in shown.one("section", id="detectors").all("dd")} == {spaced}
    assert spaced in [heading.text for heading in shown.one("section", id="curves").all("h3")]
    assert spaced in {text.text for text in shown.all("text")}  # in the legend
    assert shown.one("pre").text == f"ddpo {spaced} \N{REPLACEMENT CHARACTER}"


# What may be missing, and how the page says so.
MISSING = {
    "evaluations": (lambda run: shutil.rmtree(run.path / "evaluations"), "no evaluation ran"),
    "checkpoints": (lambda run: shutil.rmtree(run.newest()), "No checkpoint holds logs"),
    "setup": (lambda run: run.setup_file.unlink(), "run.json is missing or cannot be read"),
    "damaged setup": (lambda run: run.setup_file.write_text("{"), "run.json is missing or cannot be read"),
    "setup of another program": (lambda run: run.setup_file.write_text("[1]"), "run.json is missing or cannot be read"),
    "rollouts": (lambda run: shutil.rmtree(run.path / "rollouts"), "No rollout is recorded"),
    "pictures": (lambda run: [shutil.rmtree(p) for p in run.evaluation_folder.glob("*/*/")], "no picture"),
    "all but rollouts": (
        lambda run: [shutil.rmtree(run.path / name) for name in ("evaluations", "samples", run.newest().name)],
        "The run has no pictures of fixed prompts",
    ),
    "base": (
        lambda run: run.evaluation_file("seen", 0).unlink(),
        "Not evaluated before training",
    ),
    "damaged state": (
        lambda run: (run.newest() / "trainer_state.json").write_text("{"),
        "No checkpoint holds logs",
    ),
    "detectors": (lambda run: change_setup(run, detectors={}), "No detector watched this run"),
    "held-out rewards": (lambda run: change_setup(run, eval_rewards={}), "no held-out reward ran"),
}


def rows(table, default):
    """The rows of a table, of which the default run takes only some."""
    return [name if name in default else pytest.param(name, marks=pytest.mark.full) for name in table]


def change_setup(run, **changes):
    content = json.loads(run.setup_file.read_text())
    content["runs"][-1].update(changes)
    run.setup_file.write_text(json.dumps(content))


def test_a_run_of_an_old_version(report, tmp_path):
    """Its run.json, records and logs have few entries, and its numbers may be none."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.setup_file.write_text('{"runs": [{"model": "embedded"}]}')
    write_records(run.rollout_file(0), [{"rollout": 0, "seed": 0, "prompt": "a cat", "reward": None}])
    write_records(run.sample_file(0), [{"reward": 1.0}])
    (run.path / "checkpoint-1").mkdir()
    (run.path / "checkpoint-1" / "trainer_state.json").write_text('{"log_history": [{"step": 1, "loss": NaN}]}')
    write_manifest(run.path / "checkpoint-1")
    text = report(run).one("main").text
    assert "1 images were scored" not in text
    assert "The run began, at an unknown time" in text


IN_DEFAULT = ("evaluations", "damaged setup", "base")


@pytest.mark.parametrize("missing", rows(MISSING, IN_DEFAULT))
def test_what_is_missing_is_said(report, tmp_path, missing):
    run = SyntheticRun(unseen=(), evaluations=3, rollouts=2).write(tmp_path / "run")
    remove, said = MISSING[missing]
    remove(run)
    assert said in report(run).one("main").text


SMALL_RUNS_SAY = {
    "one rollout": "Not judged: no evaluation ran.",
    "one evaluation": "Not judged: no evaluation ran after the training began.",
    "one image": "Not judged: the evaluated images have too few rewards",
    "only begun": "Not judged: the run has only begun.",
    "base and fixed samples": "Not judged: no evaluation ran after the training began.",
}
SMALL_RUNS = {
    "one rollout": SyntheticRun(evaluations=0, rollouts=1, samples=False),
    "one evaluation": SyntheticRun(evaluations=1, rollouts=0, samples=False),
    "one image": SyntheticRun(seen=("a cat",), unseen=(), evaluations=2, rollouts=1, images=1),
    "only begun": SyntheticRun(evaluations=0, rollouts=0, samples=False),
    "base and fixed samples": SyntheticRun(evaluations=1, rollouts=1),
}


@pytest.mark.parametrize("name", rows(SMALL_RUNS, ["one evaluation", "only begun"]))
def test_small_runs_have_a_page(report, tmp_path, name):
    shown = report(SMALL_RUNS[name].write(tmp_path / "run"))
    assert shown.one("section", id="verdict").one("p", cls="sentence").text.startswith(SMALL_RUNS_SAY[name])


def test_damaged_files_are_left_out(report, whole, tmp_path, caplog):
    run = RunFolder(shutil.copytree(whole.path, tmp_path / "run"))
    run.evaluation_file("seen", 4).write_bytes(b"no parquet")
    run.rollout_file(1).write_bytes(b"no parquet")
    first, second, *_ = run.evaluations()["seen"][0].files
    first.write_bytes(b"no picture")
    second.write_bytes(second.read_bytes()[:60])
    card, other, *_ = report(run).all("article")
    assert [frame.attributes["data-updates"] for frame in card.all("figure")] == ["0", "8", "2", "6"]
    assert card.one("span", cls="no-picture").text == other.one("span", cls="no-picture").text == "no picture"
    assert "cannot be read and is left out" in caplog.text


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert main(["report", str(tmp_path / name)]) == 2
    message = capsys.readouterr().err.strip()
    assert re.match(r"ddpo report: .* (is no folder; give|holds no run: ).*", message)
    assert "\n" not in message
    assert not (tmp_path / "empty" / "report.html").exists()


#: A run of which little else is drawn.
PICTURES = SyntheticRun(
    side=256, evaluations=4, rollouts=0, seen=("a cat", "a dog"), unseen=(), setup={"detectors": {}, "eval_rewards": {}}
)


def test_pictures_are_made_smaller_for_the_limit(tmp_path, monkeypatch):
    """A quarter of the pictures' own size is all that there is; base and last model come first."""
    run = PICTURES.write(tmp_path / "run")
    own = sum(file.stat().st_size for one in run.evaluations()["seen"] for file in one.files)
    text = len(with_limit(run, monkeypatch, 0).read_bytes())
    limit = text + own // 4
    file = with_limit(run, monkeypatch, limit)
    assert text < file.stat().st_size <= limit + 200  # the note
    shown = page(file)
    assert re.search(
        r"at most \d+ pixels wide and high, as WebP of quality \d+", shown.one("section", id="pictures").text
    )
    for card in shown.all("article"):
        assert len(list(card.one("div", cls="marked").all("img"))) == 2
        sizes = {Image.open(io.BytesIO(decoded(image))).size for image in card.all("img")}
        assert max(max(size) for size in sizes) < 256


def with_limit(run, monkeypatch, limit):
    monkeypatch.setattr(pages, "MAX_BYTES", limit)
    assert main(["report", str(run.path)]) == 0
    return run.path / "report.html"


def test_pictures_that_do_not_go_into_the_limit_are_counted(tmp_path, monkeypatch):
    run = PICTURES.write(tmp_path / "run")
    text = len(with_limit(run, monkeypatch, 0).read_bytes())
    shown = page(with_limit(run, monkeypatch, text + 2200))
    number = len(list(shown.one("section", id="pictures").all("img")))
    assert 0 < number < 8
    assert "more do not go into this page" in shown.one("section", id="pictures").text


def test_the_full_page_has_every_picture_as_it_is(tmp_path, monkeypatch):
    """Also of a run whose name means something else in an address."""
    monkeypatch.setattr("trainer_ext.report.gallery.MAX_MOMENTS", 2)
    run = SyntheticRun(samples=False).write(tmp_path / "run #1 100%")
    assert main(["report", str(run.path), "--full", str(tmp_path / "full")]) == 0
    shown = page(tmp_path / "full" / "index.html")
    sources = {image.attributes["src"] for image in shown.one("section", id="pictures").all("img")}
    files = [file for found in run.evaluations().values() for one in found for file in one.files]
    assert len(sources) == len(files) == 25
    contents = {(tmp_path / "full" / source).read_bytes() for source in sources}
    assert contents == {file.read_bytes() for file in files}


def test_a_long_run_shows_some_moments_and_says_so(tmp_path, report):
    shown = report(SyntheticRun(evaluations=30, rollouts=1, seen=("a cat",), unseen=(), side=8).write(tmp_path / "run"))
    frames = list(shown.one("article").all("figure"))
    assert len(frames) in (12, 13)
    assert {"0", "58"} <= {frame.attributes["data-updates"] for frame in frames}
    assert f"{len(frames)} of 30 moments are shown" in shown.one("section", id="pictures").text


def test_the_number_of_pictures_does_not_grow_with_the_run(tmp_path, report, monkeypatch):
    """What keeps 200 evaluations of 64 prompts below 15 MB and 20 s: see benchmarks/report.py."""
    monkeypatch.setattr(gallery, "MAX_CARDS", 3)
    monkeypatch.setattr(gallery, "MAX_MOMENTS", 4)
    prompts = tuple(f"animal {number}" for number in range(5))
    pictures = {}
    for evaluations in (10, 20):
        run = SyntheticRun(evaluations=evaluations, rollouts=1, seen=prompts, unseen=(), side=8)
        shown = report(run.write(tmp_path / f"run-{evaluations}"))
        pictures[evaluations] = [len(list(card.all("img"))) for card in shown.all("article")]
    assert [len(each) for each in pictures.values()] == [3, 3]
    assert max(number for each in pictures.values() for number in each) <= 4 + 3, (
        "some moments, and those that are marked"
    )


def test_output_and_full_exclude_each_other(capsys, whole):
    assert main(["report", str(whole.path), "--output", "a.html", "--full", "b"]) == 2
    assert "--output names a file and --full a folder" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--full"])
def test_what_cannot_be_written_is_one_line(whole, tmp_path, capsys, option):
    (tmp_path / "file").write_text("kept")
    assert main(["report", str(whole.path), option, str(tmp_path / "file" / "page")]) == 2
    message = capsys.readouterr().err.strip()
    assert re.search(r"cannot be written: (Not a directory|File exists)\. Name another place with --output\.$", message)
    assert "\n" not in message


def test_a_folder_is_not_replaced_by_a_page(whole, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years")
    for command in (["report", str(whole.path)], ["compare", str(whole.path), str(whole.path)]):
        assert main([*command, "--output", str(tmp_path / "mine")]) == 2
        assert "is a folder; name the file to write" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "three years"


def test_pages_need_no_torch():
    code = "import sys; import trainer_ext.report.page, trainer_ext.report.comparison_page; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gains_are_those_of_the_measures(whole, tmp_path):
    from trainer_ext.report.facts import RunFacts
    from trainer_ext.report.progress import Progress
    from trainer_ext.runs.measures.formulas import gold

    run = RunFolder(shutil.copytree(whole.path, tmp_path / "run"))
    change_setup(run, eval_rewards={"embedded_judge": {}, "other": {}})
    for one in run.evaluations()["seen"]:  # of the last image, one reward is missing now and then
        for index, record in enumerate(one.records):
            record["rewards/other"] = None if index == 3 and one.updates % 4 else index * (2.0 + one.updates)
        write_records(run.evaluation_file("seen", one.updates), one.records)
    facts = RunFacts.read(run.path)
    progress = Progress.of(facts, facts.moments["seen"])
    base, *others = run.evaluations()["seen"]
    expected = [gold(one.records, base.records, facts.held_out) for one in others]
    assert progress.gold.mean[1:] == pytest.approx(expected)
    assert progress.gold.mean[0] == progress.proxy.mean[0] == 0
    assert progress.queries.tolist() == [0, 8, 16, 24, 32]
    assert progress.kl == pytest.approx(30 * np.linspace(0, 1, 5) ** 2)
