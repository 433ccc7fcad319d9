"""benchmarks/algorithms.py: a comparison that is made in parts, of runs in several folders."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from support.synthetic_runs import SyntheticRun

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "algorithms.py"


def write_run(folder, seed, cpu_seconds):
    SyntheticRun(seed=seed, evaluations=0, samples=False).write(folder)
    if cpu_seconds is not None:
        (folder / "cpu_seconds.json").write_text(json.dumps(cpu_seconds))


@pytest.fixture
def parts(tmp_path):
    """Two finished runs of one algorithm, one of another in a second folder, and one that was cut off."""
    for name, seconds in {
        "here/aesthetic-NFT-0": 30.0,
        "here/aesthetic-NFT-1": 50.0,
        "there/aesthetic-RWR-1": 20.0,
    }.items():
        write_run(tmp_path / name, len(name), seconds)
    write_run(tmp_path / "there" / "aesthetic-AWM-0", 3, None)
    return tmp_path


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["algorithms.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return capsys.readouterr().out


def test_tables_plots_and_pages_of_what_is_there(parts, monkeypatch, capsys):
    before = sorted(parts.rglob("*"))
    said = run(
        monkeypatch,
        capsys,
        "--report_only",
        "--output_dir",
        parts / "page",
        "--runs_in",
        parts / "here",
        parts / "there",
    )
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in said.splitlines() if line.startswith("| ")}
    assert set(rows) == {"algorithm", "NFT", "RWR"}, "neither those that are missing, nor the one that was cut off"
    assert rows["algorithm"][4:6] == ["gain at 24 queries", "gain at 20 CPU seconds"], "where the shortest run ends"
    assert [rows[name][-1] for name in ("NFT", "RWR")] == ["40 |", "20 |"], "means over seeds"
    assert rows["NFT"][2].count(",") == 1
    assert "incompressibility: no finished run." in said
    assert "With 20 CPU seconds, in the order of gain: " in said
    written = {path.name for path in (parts / "page").iterdir()}
    assert written == {"aesthetic.html", "aesthetic-queries.png", "aesthetic-seconds.png"}
    assert sorted(path for path in parts.rglob("*") if parts / "page" not in (path, *path.parents)) == before


def test_finished_runs_are_not_run_again(parts, monkeypatch, capsys):
    """Nothing is left to do here, so that this takes no time; and a run that fails is named after the table of the others."""
    asked = ("--only", "NFT", "--tasks", "aesthetic", "--seeds", "0", "1", "--output_dir", parts / "here")
    assert "| NFT |" in run(monkeypatch, capsys, *asked)
    assert not list((parts / "here").glob("*.log"))


def test_options_of_a_run_have_no_place_in_a_report(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "--report_only", "--max_steps", "1")
    assert "--max_steps 1 would be options of a run" in capsys.readouterr().err
