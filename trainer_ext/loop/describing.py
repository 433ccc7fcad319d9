"""What draws or describes a run can only warn: no picture, curve or progress bar is worth a training."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

logger = logging.getLogger(__name__)

Method = Callable[..., None]


@contextlib.contextmanager
def describing(what: str) -> Iterator[None]:
    """
    Context manager that turns any error of its block into a warning; the same one is shown once.

    Args:
        what (`str`):
            What is drawn or shown, as the subject of a sentence: `"The reward curve"`.
    """
    try:
        yield
    except Exception as error:
        _warn_once(f"{what} could not be made, and the run goes on without it: {type(error).__name__}: {error}")


def described_as(what: str) -> Callable[[Method], Method]:
    """Return a decorator that runs a method inside of [`describing`]."""

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def never_failing(*args: Any, **kwargs: Any) -> None:
            with describing(what):
                method(*args, **kwargs)

        return never_failing

    return decorate


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)
