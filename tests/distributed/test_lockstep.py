"""Two real processes at different places: they stop together. What they do is in places.py."""

import signal
from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType
from support.places import (
    both_fail,
    nothing_happens,
    one_fails_after_its_last_check,
    one_fails_early,
    one_is_interrupted,
    one_is_interrupted_after_its_last_check,
    one_is_terminated_and_one_interrupted,
)

from ddpo_plugins.errors import DDPOError
from trainer_ext.loop.interrupts import StopRequest
from trainer_ext.loop.lockstep import Lockstep

pytestmark = pytest.mark.timeout(1200)  # the launch that all share is in it

TOLD = "Process {} failed, so all stop. Its error: OSError: no server"


@pytest.mark.parametrize(
    ("case", "checks", "errors"),
    [
        (nothing_happens, 3, [None, None]),
        (one_is_interrupted, 2, [["StoppedError", ""]] * 2),
        (one_is_terminated_and_one_interrupted, 2, [["TerminatedError", "143"]] * 2),
        (one_is_interrupted_after_its_last_check, 10, [["StoppedError", ""]] * 2),
        (one_fails_early, 1, [["DDPOError", TOLD.format(1)], ["OSError", "no server"]]),
        (one_fails_after_its_last_check, 3, [["OSError", "no server"], ["DDPOError", TOLD.format(0)]]),
        (both_fail, 1, [["OSError", "no server for 0"], ["OSError", "no server for 1"]]),
    ],
)
def test_two_processes_stop_together(two, case, checks, errors):
    assert [seen["places"][case.__name__] for seen in two] == [[checks, error, 2.0] for error in errors]


def alone(kind=DistributedType.NO, processes=1):
    stop = StopRequest()
    return Lockstep(SimpleNamespace(num_processes=processes, distributed_type=kind), stop), stop


def test_alone():
    lockstep, stop = alone()
    with lockstep.guarded():
        lockstep.check()
    with pytest.raises(OSError, match="no server"), lockstep.guarded():
        raise OSError("no server")
    stop.signum = signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        lockstep.check()


def test_where_a_forward_pass_is_collective_a_failure_is_raised_at_once():
    """There is no later place at which the others could be met; the accelerator here has no `reduce`."""
    lockstep, _ = alone(DistributedType.FSDP, processes=2)
    with pytest.raises(OSError, match="no server") as raised, lockstep.guarded():
        raise OSError("no server")
    assert not isinstance(raised.value, DDPOError)
