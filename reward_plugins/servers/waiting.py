"""How long to wait before another attempt, and how to wait for several answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TypeVar

Reply = TypeVar("Reply")

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  #: seconds between attempts, doubled each time
_JITTER = random.Random()  # not the module's own generator: a run that is repeated must not notice a retry


def delay(attempt: int, retry_after: str = "") -> float:
    """Return the seconds to wait after attempt 1, 2, ...: twice the last delay, or longer if the server asks for it."""
    doubled = min(FIRST_DELAY * 2 ** (attempt - 1), LONGEST_DELAY) * (1 - 0.25 * _JITTER.random())
    return max(doubled, min(float(retry_after), LONGEST_DELAY)) if retry_after.isdecimal() else doubled


async def all_or_none(tasks: Sequence[asyncio.Future[Reply]]) -> list[Reply]:
    """Wait for all; when one fails, cancel the others before raising its error."""
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
