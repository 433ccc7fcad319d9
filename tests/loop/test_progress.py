"""What a person sees of a run: on a narrow terminal, on a wide one, in a file, and how much time is said to be left."""

import io
import re
import sys
import time

import numpy as np
import pytest
from support.pipelines import tiny_pipeline
from support.trainers import FOUR_ANIMALS, brightness, make_trainer, records

from ddpo_plugins.errors import RewardError
from trainer_ext.loop.console import console
from trainer_ext.loop.progress.bars import TerminalBar
from trainer_ext.loop.progress.remaining import EVALUATIONS, PICTURES, UPDATES, Pace, occurrences_left
from trainer_ext.loop.progress.rows import Row, as_line, as_table_row, duration, table_header
from trainer_ext.loop.progress.views import PlainView, choose_view
from trainer_ext.runs.folder import RunFolder

OPTIONS = {
    "num_train_epochs": 2,
    "num_sample_images": 2,
    "sample_every": 1,
    "disable_tqdm": False,
    "eval_strategy": "epoch",
    "eval_dataset": FOUR_ANIMALS,
}
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train(folder, stderr, width, reward=brightness, **options):
    """Train with this standard error; return what was written to it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"COLUMNS": str(width), "TERM": "xterm-256color", "LINES": "40", "FORCE_COLOR": "1"}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stderr", stderr)
        console.cache_clear()
        try:
            make_trainer(tiny_pipeline(), folder, reward, **{**OPTIONS, **options}).train()
        finally:
            assert sys.stderr is stderr, "what redirects standard error gives it back"
            console.cache_clear()
    return stderr.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("progress")


@pytest.fixture(scope="module")
def narrow(folder):
    return train(folder / "narrow", Terminal(), 80)


@pytest.fixture(scope="module")
def wide(folder):
    return train(folder / "wide", Terminal(), 120)


@pytest.fixture(scope="module")
def plain(folder):
    """A file, where FORCE_COLOR asks for colours."""
    return train(folder / "plain", io.StringIO(), 80)


def lines(text):
    """The lines of a terminal, each as it was drawn, without colours."""
    return [line.rstrip() for line in re.split("[\r\n]+", CONTROL.sub("", text))]


def shown(folder, index):
    """What is to be shown of a rollout: its mean reward, and that of the fixed prompts before training and after it."""
    before, *after = (sheet.rewards.mean() for sheet in RunFolder(folder).samples())
    return np.mean([record["reward"] for record in records(folder, index)]), before, after[index]


def test_a_narrow_terminal_has_a_line_for_each_rollout(narrow, folder):
    rows = [line for line in lines(narrow) if re.match(r"rollout \d+: ", line)]
    for index, row in enumerate(rows):
        reward, before, after = shown(folder / "narrow", index)
        start = f"rollout {index}: reward {reward:.4g} (fixed {before:.4g} -> {after:.4g}), ratio 1"
        assert row.startswith(start)
        assert "images/s" in row
        assert len(row) <= 80
    assert len(rows) == 2


def test_a_wide_terminal_has_a_table(wide, folder):
    drawn = lines(wide)
    start = drawn.index(table_header().rstrip())
    rows = [line for line in drawn[start + 1 :] if re.match(r" +\d+ +\d", line)]
    for index, row in enumerate(rows):
        reward, before, after = shown(folder / "wide", index)
        assert row.split()[:2] == [str(index), f"{reward:.4g}"]
        assert f"{before:.4g} -> {after:.4g}" in row
        assert len(row) <= 120
    assert len(rows) == 2
    assert drawn.count(table_header().rstrip()) == 1


def test_what_is_made_has_a_bar(narrow):
    """In the order in which it is made; the number of the rollout is that of its line and its file."""
    drawn = "\n".join(lines(narrow))
    titles = [
        "evaluation ",
        "pictures before training ",
        "rollout 0 ",
        "pictures after 1 updates ",
        "rollout 0: ",
        "rollout 1 ",
    ]
    places = [drawn.index(f"\n{title}") for title in titles]
    assert places == sorted(places)
    assert re.search(r"\nrollout 0 .*4/4 steps", drawn)
    assert re.search(r"\ntraining .* [12]/2 updates .* reward \S+, \d+ s left", drawn)
    assert narrow.endswith("\x1b[1A\x1b[2K")  # the bar is gone


def test_a_file_has_a_plain_line_for_each_rollout(plain, folder):
    first, second = plain.splitlines()
    reward, before, after = shown(folder / "plain", 0)
    assert first.startswith(f"rollout 0: reward {reward:.4g} (fixed {before:.4g} -> {after:.4g}), ratio 1, ")
    assert re.search(r" images/s, \d+ s left$", first)
    assert second.startswith("rollout 1: reward ")
    assert "\x1b" not in plain


def test_without_bars_a_terminal_is_a_file(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(choose_view(bars=False), PlainView)


def test_a_run_that_fails_leaves_the_terminal_as_it_was(folder):
    calls = []

    def fails_later(images, prompts, **columns):
        calls.append(images)
        return brightness(images, prompts) if len(calls) < 4 else ["x"]

    stderr = Terminal()
    with pytest.raises(RewardError):
        train(folder / "fails", stderr, 80, fails_later, eval_strategy="no")
    assert TerminalBar.opened == []
    assert stderr.getvalue().rfind("\x1b[?25h") > stderr.getvalue().rfind("\x1b[?25l")  # the cursor is shown


# ---- rows ----

LOGS = {"reward": 1.85234, "ratio": 0.99971, "images_per_second": 14.771}


@pytest.mark.parametrize(
    ("row", "width", "expected"),
    [
        (Row(3, LOGS), None, "rollout 3: reward 1.852, ratio 0.9997, 14.77 images/s"),
        (Row(3, LOGS, (2.0845, 2.0), 65), None, "rollout 3: reward 1.852 (fixed 2.084 -> 2), ratio 0.9997, 14.77 images/s, 1 min left"),
        (Row(3, LOGS, (2.0845, 2.0), 65), 78, "rollout 3: reward 1.852 (fixed 2.084 -> 2), ratio 0.9997, 14.77 images/s"),
        (Row(3, LOGS), 20, "rollout 3: reward 1.852"),
        (Row(3, {"reward": 2.0, "denoising_loss": 1.0}), 80, "rollout 3: reward 2"),  # RWR has no ratio
        (Row(3, {}, (1.0, 2.0)), 80, "rollout 3: (fixed 1 -> 2)"),
    ],
)  # fmt: skip
def test_a_line_fits(row, width, expected):
    assert as_line(row, width) == expected


def test_a_table_fits_whatever_its_numbers():
    positive = dict.fromkeys(("reward_std", "approx_kl", "clipfrac", "seconds/training"), 1.2345e-05)
    large = Row(
        12345,
        {**positive, "reward": -1.2345e-10, "ratio": 0.99999999, "images_per_second": 1.23456e-5},
        (-1.2345e-10, -1.2345e-10),
        359_000,
    )
    assert len(table_header()) <= 120
    assert len(as_table_row(large)) <= 120


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (59.9, "1 min"),
        (600, "10 min"),
        (3599, "1 h 0 min"),
        (12000, "3 h 20 min"),
        (1e6, "278 h"),
    ],
)
def test_a_time_has_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


# ---- the time that is left ----


@pytest.mark.parametrize(
    ("step", "last", "every", "left"),
    [(0, 112, 40, 3), (40, 112, 40, 2), (80, 112, 40, 1), (112, 112, 40, 0), (0, 80, 40, 2), (79, 80, 40, 1), (5, 10, 0, 1), (3, 10, 1, 7)],
)  # fmt: skip
def test_what_is_still_to_come(step, last, every, left):
    assert occurrences_left(step, last, every) == left


def test_the_time_that_is_left_counts_evaluations_and_pictures():
    """10 updates of 2 s; evaluations of 30 s each 5 updates, the first before training; pictures of 4 s at the end."""
    now = 0.0

    def after(seconds):
        nonlocal now
        now += seconds

    pace = Pace({UPDATES: 1, EVALUATIONS: 5, PICTURES: 0}, 0, 10, lambda: now)
    after(30)
    pace.lap(EVALUATIONS, 0)
    after(4)
    pace.lap(PICTURES, 0)
    after(100)  # what belongs to nothing
    pace.start()
    assert pace.seconds_left is None
    for step in (1, 2, 3):
        after(2)
        pace.lap(UPDATES, step)
    pace.estimate()
    assert pace.seconds_left == 7 * 2 + 2 * 30 + 4
    after(10)
    assert pace.seconds_left == 7 * 2 + 2 * 30 + 4 - 10
    after(1000)
    assert pace.seconds_left == 0


def test_several_datasets_are_one_evaluation():
    seconds = iter([0.0, 10.0, 30.0, 31.0, 31.0, 31.0])
    pace = Pace({UPDATES: 1, EVALUATIONS: 0}, 0, 2, lambda: next(seconds))
    pace.lap(EVALUATIONS, 0)
    pace.lap(EVALUATIONS, 0)
    pace.lap(UPDATES, 1)
    pace.estimate()
    assert pace.seconds_left == 1 + 30


def test_the_bar_says_what_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer_ext.loop.progress.bars.SLOW_SECONDS", 0.4)
    monkeypatch.setattr("trainer_ext.scoring.background.POLL_SECONDS", 0.05)

    def sluggish(images, prompts, **columns):
        time.sleep(1.0)
        return brightness(images, prompts)

    options = {"num_train_epochs": 1, "eval_strategy": "no", "num_sample_images": 0}
    shown = " ".join(lines(train(tmp_path / "run", Terminal(), 120, [brightness, sluggish], **options)))
    assert "waiting for sluggish (" in shown
    assert "waiting for brightness" not in shown
