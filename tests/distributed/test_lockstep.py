"""Two real processes at different places: they stop together. This file is also what they run."""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from ddpo_plugins.errors import DDPOError
from trainer_ext.loop.interrupts import StopRequest
from trainer_ext.loop.lockstep import Lockstep

pytestmark = pytest.mark.xdist_group("two processes")  # launched once, not once a worker

PROCESS = int(os.environ.get("RANK", "0"))


class Place:
    """Does work of one second at most, and counts the checks that it has passed."""

    def __init__(self):
        self.stop = StopRequest()
        self.lockstep = Lockstep(Accelerator(cpu=True), self.stop)
        self.checks = 0

    def work(self, checks, seconds=0.0):
        for _ in range(checks):
            time.sleep(seconds)
            self.lockstep.check()
            self.checks += 1


def nothing_happens(place):
    with place.lockstep.guarded():
        place.work(3, seconds=0.1 * PROCESS)


def one_is_interrupted(place):
    place.work(2)
    place.stop.requested = PROCESS == 1
    place.work(3, seconds=0.1 * PROCESS)


def one_is_interrupted_after_its_last_check(place):
    with place.lockstep.guarded():
        place.work(3)
        place.stop.requested = PROCESS == 1
    place.checks = 10  # what is guarded is not lost
    place.work(1)


def one_fails_early(place):
    with place.lockstep.guarded():
        place.work(1)
        if PROCESS == 1:
            raise OSError("no server")
        place.work(3, seconds=0.1)


def one_fails_after_its_last_check(place):
    with place.lockstep.guarded():
        place.work(3)
        if PROCESS == 0:
            raise OSError("no server")


def both_fail(place):
    with place.lockstep.guarded():
        place.work(1)
        time.sleep(0.3 * PROCESS)
        raise OSError(f"no server for {PROCESS}")


CASES = (nothing_happens, one_is_interrupted, one_is_interrupted_after_its_last_check, one_fails_early,
         one_fails_after_its_last_check, both_fail)  # fmt: skip


def main(folder):
    seen = {}
    for case in CASES:
        place, error = Place(), None
        try:
            case(place)
        except (Exception, KeyboardInterrupt) as raised:
            error = [type(raised).__name__, str(raised)]
        met = place.lockstep.accelerator.reduce(torch.ones(1)).item()  # 2 if both are at this place, of this case
        seen[case.__name__] = [place.checks, error, met]
    (folder / f"{PROCESS}.json").write_text(json.dumps(seen))


@pytest.fixture(scope="module")
def seen(torchrun, tmp_path_factory):
    """Return, for each case, what process 0 and process 1 saw: checks passed, the error, and how many met afterwards."""
    folder = tmp_path_factory.mktemp("lockstep")
    result = torchrun(__file__, folder, timeout=200)
    assert result.returncode == 0, result.stdout
    both = [json.loads((folder / f"{process}.json").read_text()) for process in (0, 1)]
    return {case: [each[case] for each in both] for case in both[0]}


TOLD = "Process {} failed, so all stop. Its error: OSError: no server"


@pytest.mark.parametrize(
    ("case", "checks", "errors"),
    [
        (nothing_happens, 3, [None, None]),
        (one_is_interrupted, 2, [["StoppedError", ""]] * 2),
        (one_is_interrupted_after_its_last_check, 10, [["StoppedError", ""]] * 2),
        (one_fails_early, 1, [["DDPOError", TOLD.format(1)], ["OSError", "no server"]]),
        (one_fails_after_its_last_check, 3, [["OSError", "no server"], ["DDPOError", TOLD.format(0)]]),
        (both_fail, 1, [["OSError", "no server for 0"], ["OSError", "no server for 1"]]),
    ],
)
def test_two_processes_stop_together(seen, case, checks, errors):
    assert seen[case.__name__] == [[checks, error, 2.0] for error in errors]


def alone(kind=DistributedType.NO, processes=1):
    stop = StopRequest()
    return Lockstep(SimpleNamespace(num_processes=processes, distributed_type=kind), stop), stop


def test_alone():
    lockstep, stop = alone()
    with lockstep.guarded():
        lockstep.check()
    with pytest.raises(OSError, match="no server"), lockstep.guarded():
        raise OSError("no server")
    stop.requested = True
    with pytest.raises(KeyboardInterrupt):
        lockstep.check()


def test_where_a_forward_pass_is_collective_a_failure_is_raised_at_once():
    """There is no later place at which the others could be met; the accelerator here has no `reduce`."""
    lockstep, _ = alone(DistributedType.FSDP, processes=2)
    with pytest.raises(OSError, match="no server") as raised, lockstep.guarded():
        raise OSError("no server")
    assert not isinstance(raised.value, DDPOError)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
