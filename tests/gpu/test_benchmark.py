"""The benchmark of GPUs, as it runs without one."""

import json
import sys

import gpu
import pytest


def test_it_writes_a_table_of_trainings(tmp_path, monkeypatch, capsys):
    ways = ["bf16", "bf16, fused"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--toy", "--output_dir", str(tmp_path), "--ways", *ways])
    gpu.main()
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["way"] for row in written["rows"]] == ways, written["left out"]
    assert all(row["ratio"] < 1e-6 and row["sampling_mfu"] > 0 for row in written["rows"])
    assert "| toy | bf16, fused | 4 x 3 |" in (tmp_path / "gpu.md").read_text()


def test_what_no_time_is_left_for_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["gpu.py", "--toy", "--minutes", "0", "--output_dir", str(tmp_path), "--ways", "bf16"]
    )
    gpu.main()
    assert "- toy, bf16: no time was left" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize(("card", "rate"), [("NVIDIA H100 80GB HBM3", 989e12), ("Some other card", 5e12)])
def test_operations_are_a_share_of_the_datasheet_s_if_it_is_known(card, rate):
    assert gpu.peak_rate(card, 5e12) == rate
