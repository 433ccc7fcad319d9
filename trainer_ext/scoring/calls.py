"""Calls rewards and detectors, and knows which are still running."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ddpo_plugins.contract import RewardLog
from ddpo_plugins.errors import RewardError
from ddpo_plugins.guarding import ChangedSettingError, unchanged_settings
from ddpo_plugins.masking import without_secrets

from .batch import Batch
from .faults import what_it_did
from .functions import ImageFunction
from .threads import EventLoop


@dataclass(frozen=True)
class Order:
    """
    What is to be called, and with what.

    Parameters:
        function ([`ImageFunction`]):
            The function to call.
        batch ([`Batch`]):
            B images, and everything else that it is called with.
        log ([`RewardLog`]):
            Collects what it logs about these images.
    """

    function: ImageFunction
    batch: Batch
    log: RewardLog


@dataclass(frozen=True)
class Call:
    """
    A call that has not returned.

    Parameters:
        function ([`ImageFunction`]):
            The function that was called.
        prompts (`Sequence[str]`):
            Prompts of the images it was called with.
        since (`float`):
            When it was called, by `time.monotonic`.
    """

    function: ImageFunction
    prompts: Sequence[str]
    since: float


class Calls:
    """
    Calls plain functions one after the other in this thread, then `async def` functions all at once on one event loop, which
    this object keeps.
    """

    def __init__(self) -> None:
        self._loop = EventLoop()
        self._running: dict[str, Call] = {}

    @property
    def running(self) -> list[Call]:
        """Calls that have not returned, the oldest first. May be asked from another thread."""
        return sorted(self._running.copy().values(), key=lambda call: call.since)

    def give_up(self) -> None:
        """Abandon calls that hang: `async def` functions are cancelled; others, and a loop they block, cannot be ended."""
        self._loop.cancel()
        self._loop = EventLoop()
        self._running = {}

    def call_all(self, orders: Sequence[Order]) -> list[list[float]]:
        """
        Carry out orders.

        Returns:
            `list[list[float]]`: the values of each order's images, NaN where there is none.

        Raises:
            [`RewardError`]: a function raised an error, broke its contract, or changed settings of the process.
        """
        returned: list[Any] = []
        try:
            for order in orders:
                returned.append(self._call(order))
            if any(map(inspect.isawaitable, returned)):
                return self._loop.run(self._settle(orders, returned))
            return returned
        finally:
            for value in returned:
                if inspect.iscoroutine(value):
                    value.close()  # does nothing to one that was awaited

    def _call(self, order: Order) -> list[float] | Awaitable[Any]:
        """Return the values of a function, or what has to be awaited for them."""
        function, prompts = order.function, order.batch.prompts
        arguments = order.batch.arguments(function, order.log)
        try:
            with self._noted(function, prompts), unchanged_settings():
                returned = function.function(**arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit and CancelledError, which would end more than this call
            raise _raised([function], error) from without_secrets(error)
        return returned if inspect.isawaitable(returned) else function.check(returned, prompts)

    async def _settle(self, orders: Sequence[Order], values: Sequence[Any]) -> list[list[float]]:
        """Await all awaitables at once. If one fails, the others are cancelled."""
        tasks = [asyncio.ensure_future(self._await(order, value)) for order, value in zip(orders, values, strict=True)]
        try:
            with unchanged_settings():  # of all together: between two steps of one, the others run
                return list(await asyncio.gather(*tasks))
        except ChangedSettingError as error:
            pairs = zip(orders, values, strict=True)
            awaited = [order.function for order, value in pairs if inspect.isawaitable(value)]
            raise _raised(awaited, error) from without_secrets(error)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _await(self, order: Order, value: Awaitable[Any] | list[float]) -> list[float]:
        if not inspect.isawaitable(value):
            return value
        function, prompts = order.function, order.batch.prompts
        try:
            with self._noted(function, prompts):
                returned = await value
        except BaseException as error:  # also KeyboardInterrupt, which would end the loop, not the program
            if isinstance(error, GeneratorExit) or _is_cancelled(error):
                raise
            raise _raised([function], error) from without_secrets(error)
        return function.check(returned, prompts)

    @contextlib.contextmanager
    def _noted(self, function: ImageFunction, prompts: Sequence[str]) -> Iterator[None]:
        running = self._running
        running[str(function)] = Call(function, prompts, time.monotonic())
        try:
            yield
        finally:
            running.pop(str(function), None)


def _is_cancelled(error: BaseException) -> bool:
    """Return whether this task is being cancelled from outside, because another failed or takes too long."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _raised(functions: Sequence[ImageFunction], error: BaseException) -> RewardError:
    kind = functions[0].kind
    return RewardError(
        f"{' or '.join(map(str, functions))} {what_it_did(error)} Training stops, because a failed {kind} must not become a "
        f"number; repair the {kind} and resume from the last checkpoint."
    )
