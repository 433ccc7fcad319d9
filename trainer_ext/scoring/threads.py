"""Threads for rewards: one for plain calls, one with an event loop. None of them keeps a program from ending."""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

GRACE_SECONDS = 2.0  #: for which the end of a program waits for a blocked event loop


class Worker:
    """
    A thread that does one call after the other. It ends with its owner, and with the program even if a call hangs.

    Not a `ThreadPoolExecutor`, whose threads are waited for when the program ends.

    Args:
        name (`str`):
            Name of the thread.
        alone (`bool`, *optional*, defaults to `False`):
            Let torch compute in this thread alone. A thread that uses several gets them for itself and keeps them; where there
            are then more than cores, those of all other threads sleep and wake at each operation, which halves their speed.
    """

    def __init__(self, name: str, alone: bool = False) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        _start_thread(name, _work, self._queue)
        if alone:
            self._compute_alone()
        weakref.finalize(self, self._queue.put, None)

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Do `work` after all work that was submitted before."""
        future: Future[Result] = Future()
        self._queue.put((future, work))
        return future

    def _compute_alone(self) -> None:
        torch = sys.modules.get("torch")
        if torch is None:
            return
        number = torch.get_num_threads()
        self.submit(partial(torch.set_num_threads, 1)).result()
        self.submit(torch.get_num_threads).result()  # at first, any thread takes the number that another set last
        torch.set_num_threads(number)


def _work(queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while (item := queue.get()) is not None:
        future, work = item
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
            del result
        del item, future, work  # or the images of the last batch would stay in memory until the next


class EventLoop:
    """
    One event loop for all `async def` functions of an owner, in a separate thread that starts with the first call.

    So a client that a function creates and keeps, and that belongs to the loop, works in every later call.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._current: Future[Any] | None = None

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the loop and wait for it. Works also where another loop is running, as in a notebook."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            thread = _start_thread("async rewards", _serve, self._loop)
            weakref.finalize(self, _end, self._loop, thread)
        current = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._current = current
        return current.result()

    def cancel(self) -> None:
        """Cancel the coroutine that is running."""
        if self._current is not None:
            self._current.cancel()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    tasks = asyncio.all_tasks(loop)  # the remaining tasks, such as connections that clients keep
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join(GRACE_SECONDS)


def _start_thread(name: str, target: Callable[..., None], *arguments: Any) -> threading.Thread:
    """Start a daemon with the CUDA device of this thread: a new thread's would be the first of the machine."""
    torch = sys.modules.get("torch")  # not imported here: servers of rewards may live without it
    device = torch.cuda.current_device() if torch is not None and torch.cuda.is_initialized() else None

    def run() -> None:
        if torch is not None and device is not None:
            torch.cuda.set_device(device)
        target(*arguments)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
