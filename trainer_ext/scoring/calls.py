"""Calls rewards and detectors, and knows which are still running."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ddpo_plugins.errors import RewardError
from ddpo_plugins.masking import without_secrets

from ..images import to_pil
from .functions import ImageFunction
from .threads import EventLoop


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

    def call_all(
        self, functions: Sequence[ImageFunction], images: torch.Tensor, arguments: Mapping[str, Any]
    ) -> list[Any]:
        """
        Call each function.

        Args:
            functions (`Sequence[ImageFunction]`):
                The functions to call.
            images (`torch.Tensor` of shape `(B, H, W, 3)`, uint8):
                RGB; each function receives them in the form that it asks for.
            arguments (`Mapping[str, Any]`):
                The other arguments, with `prompts`.

        Returns:
            `list`: the values that they returned.

        Raises:
            [`RewardError`]: a function raised an error.
        """
        forms = _image_forms(images, {function.images for function in functions})
        returned: list[Any] = []
        try:
            for function in functions:
                returned.append(self._call(function, {**arguments, "images": forms[function.images]}))
            if any(map(inspect.isawaitable, returned)):
                return self._loop.run(self._settle(functions, returned, arguments["prompts"]))
            return returned
        finally:
            for value in returned:
                if inspect.iscoroutine(value):
                    value.close()  # does nothing to one that was awaited

    def _call(self, function: ImageFunction, arguments: Mapping[str, Any]) -> Any:
        try:
            with self._noted(function, arguments["prompts"]):
                return function.function(**arguments)
        except (Exception, SystemExit) as error:
            raise _raised(function, error) from without_secrets(error)

    async def _settle(
        self, functions: Sequence[ImageFunction], values: Sequence[Any], prompts: Sequence[str]
    ) -> list[Any]:
        """Await all awaitables at once. If one fails, the others are cancelled."""
        tasks = [asyncio.ensure_future(self._await(f, v, prompts)) for f, v in zip(functions, values, strict=True)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _await(self, function: ImageFunction, value: Awaitable[Any] | Any, prompts: Sequence[str]) -> Any:
        if not inspect.isawaitable(value):
            return value
        try:
            with self._noted(function, prompts):
                return await value
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # the last two would end the loop, not the program
            raise _raised(function, error) from without_secrets(error)

    @contextlib.contextmanager
    def _noted(self, function: ImageFunction, prompts: Sequence[str]) -> Iterator[None]:
        running = self._running
        running[str(function)] = Call(function, prompts, time.monotonic())
        try:
            yield
        finally:
            running.pop(str(function), None)


def _raised(function: ImageFunction, error: BaseException) -> RewardError:
    return RewardError(
        f"{function} raised {type(error).__name__}: {str(error).rstrip('.')}. Training stops, because a failed "
        f"{function.kind} must not become a number; repair the {function.kind} and resume from the last checkpoint."
    )


def _image_forms(images: torch.Tensor, wanted: set[str]) -> dict[str, Any]:
    forms: dict[str, Any] = {}
    if "pil" in wanted:
        forms["pil"] = to_pil(images)
    if "pt" in wanted:
        forms["pt"] = images.permute(0, 3, 1, 2).float() / 255
    return forms
