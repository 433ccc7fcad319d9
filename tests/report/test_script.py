"""The script of a report's page, in a browser: tables are sorted, and pictures follow a slider."""

import pytest
from support.browser import ask, needs_browser
from support.synthetic_runs import SyntheticRun

from trainer_ext.cli import main

pytestmark = needs_browser

USE = """
const table = document.querySelector("table.sortable");
const column = (index) => [...table.tBodies[0].rows].map((row) => row.cells[index].dataset.value ?? row.cells[index].textContent.trim());
const click = (index) => { table.tHead.rows[0].cells[index].querySelector("button").click(); return column(index); };
const last = table.tHead.rows[0].cells.length - 2;
const sorted = { words: click(0), again: click(0), numbers: click(last), back: click(last) };
sorted.said = [...table.tHead.rows[0].cells].map((cell) => cell.getAttribute("aria-sort"));

const card = document.querySelector(".card");
const range = card.querySelector("input[type=range]");
const stage = card.querySelector(".stage");
const moved = [];
for (const value of [0, 2, Number(range.max)]) {
  range.value = value;
  range.dispatchEvent(new Event("input"));
  moved.push([range.getAttribute("aria-valuetext"), stage.querySelector("img").src === frame(value).src]);
}
function frame(position) {
  const frames = [...card.querySelectorAll(".frame:not(.stage)")].sort((a, b) => a.dataset.updates - b.dataset.updates);
  return frames[position].querySelector("img");
}
const all = document.querySelector("#all-moments input");
all.value = 0;
all.dispatchEvent(new Event("input"));
const together = [...document.querySelectorAll(".card input[type=range]")].map((one) => one.value);
return { sorted, moved, together };
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    run = SyntheticRun(seen=("a cat", "a dog", "a bear"), unseen=(), evaluations=5, rollouts=2).write(folder / "run")
    assert main(["report", str(run.path)]) == 0
    return ask(run.path / "report.html", USE, folder)


def test_a_click_on_a_heading_sorts_and_another_turns_the_order(seen):
    table = seen["sorted"]
    assert table["words"] == ["a bear", "a cat", "a dog"]
    assert table["again"] == ["a dog", "a cat", "a bear"]
    numbers = [float(value) for value in table["numbers"]]
    assert numbers == sorted(numbers)
    assert [float(value) for value in table["back"]] == numbers[::-1]
    assert [said for said in table["said"] if said] == ["descending"]


def test_the_slider_shows_the_picture_of_its_moment(seen):
    assert seen["moved"] == [["update 0", True], ["update 4", True], ["update 8", True]]
    assert set(seen["together"]) == {"0"}
