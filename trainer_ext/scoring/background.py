"""Scores one batch while the next is sampled, in a thread that can be abandoned if it hangs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from ddpo_plugins.errors import RewardError

from ..loop.interrupts import StopRequestedError
from .calls import Call, Calls
from .threads import Worker

Result = TypeVar("Result")
#: Receives the names of the rewards in progress, and the seconds so far.
OnWait = Callable[[Sequence[str], float], None]

POLL_SECONDS = 0.5  #: between two checks of the rewards in progress
MAX_PROMPTS_SHOWN = 3  #: of a call that hangs


class BackgroundScorer:
    """
    Runs rewards one batch after the other, in the given order, so that random numbers are drawn in that order.

    Args:
        calls ([`Calls`]):
            Makes the calls.
        overlap (`bool`, *optional*, defaults to `True`):
            Run them in a separate thread. If false, they run in the caller's thread, and none can be abandoned.
        timeout (`float`, *optional*):
            Seconds that a reward may take for a batch.
        share_cores (`bool`, *optional*, defaults to `False`):
            The sampler computes on the processor too. In the separate thread, torch then uses no further threads.
    """

    def __init__(
        self, calls: Calls, overlap: bool = True, timeout: float | None = None, share_cores: bool = False
    ) -> None:
        self.calls = calls
        self.share_cores = share_cores
        self.overlap = overlap
        self.timeout = timeout
        self._worker: Worker | None = None

    @contextlib.contextmanager
    def overlapping(self, on_wait: OnWait | None = None) -> Iterator[PendingScores]:
        """
        Context manager that scores batches while its block samples. It always waits for all of them, even after an error, so
        that rewards no longer draw random numbers afterwards. Only a second Ctrl-C does not wait.

        Raises:
            [`RewardError`]: a reward raised it, or takes too long.
        """
        overlap = PendingScores(self, on_wait)
        try:
            yield overlap
            overlap.collect()
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt) or isinstance(error, StopRequestedError):
                overlap.settle()
            raise

    def run(self, work: Callable[[], Result]) -> Result:
        """
        Score a batch, and wait for it.

        Raises:
            [`RewardError`]: a reward raised it, or takes too long.
        """
        return self.wait(self.start(work))

    def start(self, work: Callable[[], Result]) -> Future[Result]:
        """Begin to score a batch."""
        if not self.overlap:
            done: Future[Result] = Future()
            done.set_result(work())
            return done
        if self._worker is None:
            self._worker = Worker("rewards", alone=self.share_cores)
        return self._worker.submit(work)

    def wait(self, future: Future[Result], on_wait: OnWait | None = None) -> Result:
        """Wait for a batch. See [`run`]."""
        start = time.monotonic()
        while not wait(
            [future], timeout=POLL_SECONDS if self.timeout is None else min(POLL_SECONDS, self.timeout)
        ).done:
            running = self.calls.running
            if running and self.timeout is not None and time.monotonic() - running[0].since > self.timeout:
                self._worker = None  # it may never return; the next batch gets a new one
                self.calls.give_up()
                raise _hanging(running[0], self.timeout)
            if on_wait is not None:
                on_wait([call.function.name for call in running], time.monotonic() - start)
        return future.result()


class PendingScores:
    """
    The batches of one rollout: at most one is being scored, so that memory is bounded.

    Args:
        scorer ([`BackgroundScorer`]):
            Scores them.
        on_wait (`Callable`, *optional*):
            Told which rewards are in progress.

    Parameters:
        results (`list`):
            Results of the batches that are scored.
        seconds (`dict[str, float]`):
            `reward`, the time that rewards took; `reward_wait`, the part of it in which nothing was sampled.
    """

    def __init__(self, scorer: BackgroundScorer, on_wait: OnWait | None):
        self.results: list[Any] = []
        self.seconds = {"reward": 0.0, "reward_wait": 0.0}
        self._scorer = scorer
        self._on_wait = on_wait
        self._pending: Future[Any] | None = None

    def put(self, work: Callable[[], Any]) -> None:
        """Score a batch, once the one before is scored."""
        self.collect()

        def timed() -> Any:
            start = time.perf_counter()
            try:
                return work()
            finally:
                self.seconds["reward"] += time.perf_counter() - start

        start = time.perf_counter()
        self._pending = self._scorer.start(timed)
        self.seconds["reward_wait"] += time.perf_counter() - start  # all of it, where rewards do not overlap

    def collect(self) -> None:
        """Wait for the batch that is being scored, if there is one."""
        pending, self._pending = self._pending, None
        if pending is not None:
            start = time.perf_counter()
            self.results.append(self._scorer.wait(pending, self._on_wait))
            self.seconds["reward_wait"] += time.perf_counter() - start

    def settle(self) -> None:
        """Wait until nothing is being scored, and ignore the result: another error is already being raised."""
        with contextlib.suppress(Exception):
            self.collect()


def _hanging(call: Call, timeout: float) -> RewardError:
    prompts = ", ".join(map(repr, call.prompts[:MAX_PROMPTS_SHOWN])) + (
        ", ..." if len(call.prompts) > MAX_PROMPTS_SHOWN else ""
    )
    return RewardError(
        f"{call.function} has not answered for {time.monotonic() - call.since:.1f} seconds (reward_timeout is {timeout:g}); its "
        f"{len(call.prompts)} prompt(s) are {prompts}. Training stops; repair the {call.function.kind}, or allow it more "
        "seconds, and resume from the last checkpoint."
    )
