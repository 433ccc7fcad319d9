"""Several servers of one function: the least busy is asked, and one that fails is left out until it answers again."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import httpx

from ddpo_plugins import RewardError
from ddpo_plugins.wire import Reply, Request

from .client import LostError, describe, differences, encode, open_client, score
from .waiting import all_or_none, delay

logger = logging.getLogger(__name__)

REQUESTS_PER_SERVER = 4  #: under way at once: one is computed while others travel


@dataclass
class Server:
    """
    What this process knows of one server.

    Parameters:
        url (`str`):
            Its address.
        under_way (`int`):
            Requests of this process that it has not answered.
        failures (`int`):
            Attempts in a row that failed.
        back_at (`float`):
            When it is asked again, by `time.monotonic`.
        fault (`str`):
            What happened last.
    """

    url: str
    under_way: int = 0
    failures: int = 0
    back_at: float = 0.0
    fault: str = ""


@final
class Pool:
    """
    Servers of one reward or detector.

    Args:
        kind (`"reward"` or `"detector"`), name (`str`):
            The function.
        urls (`Sequence[str]`):
            Addresses of the servers.
        timeout (`float`):
            Seconds for one request.
        max_retries (`int`):
            How often a failed request is sent again, to whichever server is next.
    """

    def __init__(self, kind: str, name: str, urls: Sequence[str], timeout: float, max_retries: int):
        self.kind = kind
        self.name = name
        self.timeout = timeout
        self.max_retries = max_retries
        self.served: dict[str, Any] = {}
        self._servers = [Server(url) for url in urls]
        random.Random().shuffle(self._servers)  # so that all processes of a run do not begin with the same one

    async def check(self) -> None:
        """
        Wait until every server answers, and see that all serve the same.

        Raises:
            [`RewardError`]: one does not answer, or has no such function, or another one than the others.
        """
        async with open_client() as client:
            found = await all_or_none([asyncio.ensure_future(self._check(client, one)) for one in self._servers])
        for server, served in zip(self._servers, found, strict=True):
            if served != found[0]:
                raise RewardError(
                    f"The servers at {self._servers[0].url} and {server.url} serve different {self.kind}s: "
                    f"{differences(found[0], served)}. Start them with the same options and versions."
                )
        self.served = found[0]

    async def _check(self, client: httpx.AsyncClient, server: Server) -> dict[str, Any]:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await describe(client, server.url, self.kind, self.name, self.timeout)
            except LostError as fault:
                server.fault = str(fault)
                if attempt > self.max_retries:
                    raise self._error([server], attempt) from None
                await asyncio.sleep(delay(attempt, fault.retry_after))

    async def score(self, makers: Sequence[Callable[[], Request]]) -> list[Reply]:
        """
        Answer several requests at the same time.

        Args:
            makers (`Sequence[Callable[[], Request]]`):
                Functions that make them, which takes time: they are called in threads.

        Raises:
            [`RewardError`]: one of them was refused, or got no answer of any server.
        """
        slots = asyncio.Semaphore(REQUESTS_PER_SERVER * len(self._servers))
        async with open_client() as client:

            async def answer(make: Callable[[], Request]) -> Reply:
                async with slots:
                    return await self._score(client, make)

            return await all_or_none([asyncio.ensure_future(answer(make)) for make in makers])

    async def _score(self, client: httpx.AsyncClient, make: Callable[[], Request]) -> Reply:
        request, body = await asyncio.to_thread(lambda: encode(make()))
        attempt = 0
        while True:
            attempt += 1
            server = await self._next()
            server.under_way += 1
            try:
                reply = await score(client, server.url, request, body, self.served, self.timeout)
            except LostError as fault:
                self._leave_out(server, fault)
                if attempt > self.max_retries:
                    raise self._error([server for server in self._servers if server.failures], attempt) from None
            else:
                self._welcome(server)
                return reply
            finally:
                server.under_way -= 1

    async def _next(self) -> Server:
        """Return the least busy of those that are not left out; if all are, wait for the first that comes back."""
        while True:
            now = time.monotonic()
            ready = [server for server in self._servers if server.back_at <= now]
            if ready:
                return min(ready, key=lambda server: (server.failures > 0, server.under_way))
            await asyncio.sleep(min(server.back_at for server in self._servers) - now)

    def _leave_out(self, server: Server, fault: LostError) -> None:
        server.failures += 1
        server.fault = str(fault)
        server.back_at = time.monotonic() + delay(server.failures, fault.retry_after)
        if server.failures == 1:
            left = sum(not other.failures for other in self._servers)
            logger.warning(
                "%s %r: the server at %s is left out: %s. %d of %d servers are left; it is tried again.",
                *(self.kind.capitalize(), self.name, server.url, server.fault.rstrip("."), left, len(self._servers)),
            )

    def _welcome(self, server: Server) -> None:
        if server.failures:
            logger.warning("%s %r: the server at %s answers again.", self.kind.capitalize(), self.name, server.url)
        server.failures = 0

    def _error(self, servers: Sequence[Server], attempts: int) -> RewardError:
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        faults = "; ".join(f"{server.url}: {server.fault.rstrip('.')}" for server in servers)
        return RewardError(
            f"No answer of {self.kind} {self.name!r} in {times} (timeout {self.timeout:g} s, max_retries {self.max_retries}): "
            f"{faults}. Start the servers, correct `urls`, or raise `timeout`; `ddpo serve-reward {self.name}` starts one."
        )
