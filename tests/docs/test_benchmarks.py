"""The scripts of `benchmarks` that run `ddpo` say in a sentence why they cannot."""

import runpy
import sys

import pytest
from support.pages import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield lambda name: runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    for name in ("commands", "two_processes"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "run"), [("main_job", "jpeg_compressibility-2"), ("scaling", "4"), ("two_processes", "2")]
)
def test_files_of_an_earlier_run_end_it_before_anything_is_measured(script, name, run, tmp_path, monkeypatch, capfd):
    (tmp_path / run).mkdir()
    (tmp_path / run / "run.json").touch()
    monkeypatch.setattr(sys, "argv", [name, "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"files of an earlier run in {tmp_path / run}. Remove them, or give another"):
        script(name)
    assert [file.name for file in tmp_path.iterdir()] == [run]
    assert "|" not in capfd.readouterr().out  # no table


def test_a_command_that_fails_ends_it(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from commands import run

    run([sys.executable, "-c", "pass"])
    with pytest.raises(SystemExit, match="failed with status 2"):
        run([sys.executable, "-c", "raise SystemExit(2)"])


def test_the_memory_of_a_rollout_is_measured(script, tmp_path, monkeypatch, capsys):
    options = ["--kind", "preallocated", "--images", "16", "--side", "4", "--steps", "2", "--folder"]
    monkeypatch.setattr(sys, "argv", ["memory", *options, str(tmp_path)])
    script("memory")
    made, saved, whole, size = map(float, capsys.readouterr().out.split())
    assert min(made, saved, size) >= 0
    assert whole >= made + saved
    assert [file.name for file in tmp_path.iterdir()] == ["ddpo_state_0.pt"]
