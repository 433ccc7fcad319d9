"""The time that is left of a run, from what its parts took so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

UPDATES, PICTURES, EVALUATIONS = "updates", "pictures", "evaluations"  #: parts of a run


def occurrences_left(step: int, last: int, every: int) -> int:
    """Return how often something will still happen that happens every so many updates (0: never) and after the last one."""
    if step >= last:
        return 0
    regular = last // every - step // every if every else 0
    return regular + (not every or last % every != 0)


class Pace:
    """
    Measures the parts of a run by laps: each moment ends a part, which began at the moment before.

    Updates alone would promise too little: evaluations and pictures can take as long, and come only with some of them.

    Args:
        intervals (`Mapping[str, int]`):
            Updates between two occurrences of each part; 0 for one that comes only with the last update.
        step (`int`):
            Updates before this moment.
        last (`int`):
            Updates of the whole run.
        clock (`Callable[[], float]`, *optional*):
            Returns seconds.
    """

    def __init__(self, intervals: Mapping[str, int], step: int, last: int, clock: Callable[[], float] = time.monotonic):
        self._intervals, self._last, self._clock = intervals, last, clock
        self._steps = dict.fromkeys(intervals, step)  # at which each part was last seen
        self._seconds = dict.fromkeys(intervals, 0.0)
        self._times = dict.fromkeys(intervals, 0)
        self._moment = clock()
        self._estimate: tuple[float, float] | None = None

    def start(self) -> None:
        """Begin a part here; what came before belongs to none."""
        self._moment = self._clock()

    def lap(self, part: str, step: int) -> None:
        """End a part, after `step` updates. One that ends twice after as many updates came once, in two pieces."""
        if part not in self._intervals:
            return
        now = self._clock()
        self._seconds[part] += now - self._moment
        self._times[part] += not self._times[part] or step != self._steps[part]
        self._moment, self._steps[part] = now, step

    def estimate(self) -> None:
        """Compute the time that is left from what is left of each part. Before the first update, nothing is known."""
        if self._times[UPDATES]:
            left = {
                part: occurrences_left(self._steps[part], self._last, every) for part, every in self._intervals.items()
            }
            each = {part: self._seconds[part] / max(times, 1) for part, times in self._times.items()}
            self._estimate = (self._clock(), sum(number * each[part] for part, number in left.items()))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end, if they can be estimated."""
        if self._estimate is None:
            return None
        since, seconds = self._estimate
        return max(seconds - (self._clock() - since), 0.0)
