"""Two processes at different places of their work: what each of them does, and where it stops."""

import os
import signal
import time

import torch
from accelerate import Accelerator

from trainer_ext.loop.interrupts import StopRequest, StopRequestedError
from trainer_ext.loop.lockstep import Lockstep

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
    place.stop.signum = signal.SIGINT if PROCESS == 1 else 0
    place.work(3, seconds=0.1 * PROCESS)


def one_is_terminated_and_one_interrupted(place):
    place.work(2)
    place.stop.signum = signal.SIGTERM if PROCESS == 1 else signal.SIGINT
    place.work(3)


def one_is_interrupted_after_its_last_check(place):
    with place.lockstep.guarded():
        place.work(3)
        place.stop.signum = signal.SIGINT if PROCESS == 1 else 0
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


CASES = (nothing_happens, one_is_interrupted, one_is_terminated_and_one_interrupted, one_is_interrupted_after_its_last_check, one_fails_early,
         one_fails_after_its_last_check, both_fail)  # fmt: skip


def meet():
    """Return, by case, the checks that this process passed, its error, and how many processes met afterwards."""
    seen = {}
    for case in CASES:
        place, error = Place(), None
        try:
            case(place)
        except (Exception, StopRequestedError) as raised:
            error = [type(raised).__name__, str(raised)]
        met = place.lockstep.accelerator.reduce(torch.ones(1)).item()  # 2 if both are at this place, of this case
        seen[case.__name__] = [place.checks, error, met]
    return seen
