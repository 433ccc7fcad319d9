"""Requests to the Hub that end: each is tried a few times, for a bounded time, and an error says what to do about it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from textwrap import shorten
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from ..errors import HubAccessError, HubError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

WAITS_SECONDS = (1.0, 3.0, 9.0)  #: before the second attempt, the third, ...
PATIENCE_SECONDS = 120.0  #: for an answer, besides the time that its bytes take
TEMPORARY = frozenset({408, 409, 412, 425, 429, 500, 502, 503, 504})
ABANDONED = (
    threading.Event()
)  #: set if a thread of the client's may still wait, and would keep the program from its end
ADVICE = {
    401: "the token is wrong, or there is none: log in with `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there: use one with the role `write`, and a name under your account or organisation",
    404: "there is no such repository, or the token may not see it",
}


def attempt(what: str, action: Callable[[], Result], seconds: float, waits: Sequence[float]) -> Result:
    """
    Do something that may fail for a moment: a few times, with waits in between.

    Args:
        what (`str`):
            What is done, after "could not".
        action (`Callable`):
            Does it. Must do no harm if it is done twice.
        seconds (`float`):
            How long each attempt may take.
        waits (`Sequence[float]`):
            Seconds before each further attempt.

    Raises:
        [`HubAccessError`]: the user must do something first.
        [`HubError`]: all attempts failed.
    """
    for wait in (*waits, None):
        try:
            return _within(seconds, action)
        except Exception as error:
            _refuse(what, error)
            if wait is None:
                raise HubError(f"could not {what}: {_described(error)}") from error
            logger.warning("The Hub: could not %s (%s); trying again in %g s.", what, _described(error), wait)
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _within(seconds: float, action: Callable[[], Result]) -> Result:
    """Do something in a thread, which is abandoned after some time: the client has no time-outs of its own."""
    done: Future[Result] = Future()

    def work() -> None:
        try:
            done.set_result(action())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, name="upload to the Hub", daemon=True).start()
    try:
        return done.result(seconds)
    except TimeoutError:
        ABANDONED.set()
        raise


def _refuse(what: str, error: Exception) -> None:
    """Raise the errors that waiting does not cure."""
    if isinstance(error, LocalTokenNotFoundError):
        raise HubAccessError(f"could not {what}: {ADVICE[401]}.") from error
    if isinstance(error, OfflineModeIsEnabled):
        raise HubAccessError(f"could not {what}: the Hub is switched off; unset HF_HUB_OFFLINE.") from error
    status = _status(error)
    if status is None and isinstance(error, ValueError | TypeError):
        raise HubAccessError(f"could not {what}: {error}") from error
    if status is not None and status not in TEMPORARY:
        advice = ADVICE.get(status, "the Hub refuses the request")
        raise HubAccessError(f"could not {what}: {advice} ({_described(error)}).") from error


def _status(error: BaseException | None) -> int | None:
    """Return the status with which the Hub answered; uploads of large files wrap the error that has it."""
    while error is not None:
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            return int(error.response.status_code)
        error = error.__cause__
    return None


def _described(error: Exception) -> str:
    """Describe an error in one line."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    status = _status(error)
    text = shorten(str(error).partition("\n")[0] or type(error).__name__, 160)
    return text if status is None or str(status) in text else f"{status}: {text}"
