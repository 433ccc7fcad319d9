"""Batches that wait for their turn: a bounded number of them, and one that is being scored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ddpo_plugins.errors import DDPOError

from ..scoring.threads import Worker

Result = TypeVar("Result")


class BusyError(DDPOError):
    """As many batches are waiting as may."""


class GoneError(DDPOError):
    """Whoever asked has hung up, so that nobody needs the answer."""


class Turns:
    """
    Does one piece of work after the other in one thread, in the order in which they came: rewards need not be thread-safe.

    Args:
        most (`int`):
            Pieces of work that may be there at once, the one that is being done included.
    """

    def __init__(self, most: int):
        self.most = most
        self.waiting = 0  #: pieces of work that are done or wait
        self._turn = asyncio.Lock()
        self._worker = Worker("served rewards")  # a daemon: one that hangs does not keep the server from ending

    async def take(self, work: Callable[[], Result], is_gone: Callable[[], Awaitable[bool]]) -> Result:
        """
        Wait for a turn, and do the work.

        Raises:
            [`BusyError`]: too many are waiting.
            [`GoneError`]: `is_gone` was true when the turn came.
        """
        if self.waiting >= self.most:
            raise BusyError(f"{self.waiting} batches are waiting, as many as --max_waiting allows.")
        self.waiting += 1
        try:
            async with self._turn:
                if await is_gone():
                    raise GoneError("The client has hung up.")
                return await asyncio.wrap_future(self._worker.submit(work))
        finally:
            self.waiting -= 1
