"""The table of tests that go to one process names tests that there are."""

from pathlib import Path

import pytest
from support.scheduling import TOGETHER, group

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("start", [start for starts in TOGETHER.values() for start in starts])
def test_there_are_such_tests(start):
    path, _, name = start.partition("::")
    assert (ROOT / path).exists()
    assert not name or f"def {name}(" in (ROOT / path).read_text()


def test_what_is_shared_is_a_group_and_all_others_are_alone():
    assert group("tests/distributed/test_lockstep.py::test_alone") == group(
        "tests/distributed/test_two_processes.py::x"
    )
    assert group("tests/loop/test_metrics.py::a") != group("tests/loop/test_metrics.py::b")
