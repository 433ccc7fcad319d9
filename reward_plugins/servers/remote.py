"""The reward and the detector that are computed by `ddpo serve-reward`, in another environment or on another machine."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, final

from ddpo_plugins import DetectorSpec, LogExtra, PluginError, RewardSpec, log_nothing
from ddpo_plugins.origins import ServedElsewhere
from ddpo_plugins.wire import IMAGE_FORMATS, PROTOCOL, ImageFormat, Reply, Request, encode_image

from ..hub import missing_extra

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from .pool import Pool


def log_no_number(name: str, value: float) -> None:
    """Do nothing: the default of `log_metric`."""


@dataclass(frozen=True)
class Sent:
    """
    What is sent of a batch, and in which parts.

    Parameters:
        columns (`Sequence[str]`, *optional*):
            Columns of the dataset that are sent; all by default.
        parts (`int`):
            Number of parts of about the same size.
        images_per_request (`int`, *optional*):
            Images of a part, instead of `parts`.
        image_format (`"png"` or `"webp"`):
            How images are sent, without loss.
    """

    columns: Sequence[str] | None
    parts: int
    images_per_request: int | None
    image_format: ImageFormat

    def slices(self, count: int) -> Iterator[slice]:
        """Yield the part of the images that each request has."""
        size = self.images_per_request or math.ceil(count / self.parts)
        return (slice(start, start + size) for start in range(0, count, size))


@final
class RemoteFunction(ServedElsewhere):
    """
    Asks servers for the values of a batch.

    Args:
        pool ([`Pool`]):
            The servers, which have been checked.
        sent ([`Sent`]):
            What they are sent.
    """

    def __init__(self, pool: Pool, sent: Sent):
        self._pool = pool
        self._sent = sent

    @property
    def served(self) -> Mapping[str, Any]:
        """The function on the servers, as they describe it."""
        return self._pool.served

    async def __call__(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        trainer_state: Any = None,
        log_metric: Callable[[str, float], None] = log_no_number,
        log_extra: LogExtra = log_nothing,
        **columns: Sequence[Any],
    ) -> list[float | None]:
        """Return the servers' values for B images."""
        if not images:
            return []
        state = _plain(trainer_state)
        make = partial(self._request, images=images, prompts=prompts, columns=columns, state=state)
        replies = await self._pool.score([partial(make, part) for part in self._sent.slices(len(images))])
        _log(replies, log_metric, log_extra)
        return [value for reply in replies for value in reply["values"]]

    def _request(
        self,
        part: slice,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        columns: Mapping[str, Sequence[Any]],
        state: dict[str, Any],
    ) -> Request:
        names = columns if self._sent.columns is None else self._sent.columns
        return Request(
            protocol=PROTOCOL,
            kind=self._pool.kind,
            name=self._pool.name,
            images=[encode_image(image, self._sent.image_format) for image in images[part]],
            prompts=list(prompts[part]),
            columns={name: list(columns[name][part]) for name in names},
            trainer_state=state,
        )


def _plain(state: Any) -> dict[str, Any]:
    """Return the numbers and texts of a trainer's state."""
    values = {} if state is None else vars(state)
    plain = {name: value for name, value in values.items() if isinstance(value, bool | int | float | str)}
    return {name: value for name, value in plain.items() if not isinstance(value, float) or math.isfinite(value)}


def _log(replies: Sequence[Reply], log_metric: Callable[[str, float], None], log_extra: LogExtra) -> None:
    """Log what was logged on the servers: of numbers about a batch in several parts, the mean over its images."""
    counts = [len(reply["values"]) for reply in replies]
    for name in {name: None for reply in replies for name in reply["metrics"]}:
        there = [
            (reply["metrics"][name], n) for reply, n in zip(replies, counts, strict=True) if name in reply["metrics"]
        ]
        log_metric(name, sum(value * n for value, n in there) / sum(n for _, n in there))
    for name in {name: None for reply in replies for name in reply["extras"]}:
        each = [reply["extras"].get(name, [None] * n) for reply, n in zip(replies, counts, strict=True)]
        log_extra(name, [value for values in each for value in values])


def remote(
    kind: str,
    device: torch.device | str,
    *,
    function: str,
    urls: Sequence[str] | str,
    columns: Sequence[str] | None = None,
    images_per_request: int | None = None,
    image_format: ImageFormat = "webp",
    timeout: float = 120.0,
    max_retries: int = 8,
) -> RemoteFunction:
    """
    Build a reward or detector that servers compute, and wait until all of them answer.

    Args:
        kind (`"reward"` or `"detector"`):
            What it is.
        device (`torch.device` or `str`):
            Not used: the servers have their own.
        function (`str`):
            Name of the reward or detector on the servers.
        urls (`Sequence[str]` or `str`):
            Addresses of one or several servers of the same function, for example `"http://127.0.0.1:8900"`.
        columns (`Sequence[str]`, *optional*):
            Columns of the dataset that the function needs. All are sent by default.
        images_per_request (`int`, *optional*):
            Images in one request. By default a batch is cut into as many parts as there are servers.
        image_format (`"png"` or `"webp"`, *optional*, defaults to `"webp"`):
            How images are sent; both without loss. WebP takes a third of the time.
        timeout (`float`, *optional*, defaults to 120.0):
            Seconds for one request, until its last byte.
        max_retries (`int`, *optional*, defaults to 8):
            How often a request that failed is sent again: to another server, or after 0.5, 1, 2, ..., 30 seconds.

    Raises:
        [`PluginError`]: an option has a value that is not allowed, or the package `httpx` is missing.
        [`RewardError`]: a server does not answer, has no such function, or another one than the others.
    """
    places = [urls] if isinstance(urls, str) else list(urls)
    _check(places, images_per_request, image_format, timeout, max_retries)
    try:
        from .pool import Pool
    except ModuleNotFoundError as error:
        raise missing_extra("The package httpx, which talks to servers,", "remote") from error
    pool = Pool(kind, function, [url.rstrip("/") for url in places], timeout, max_retries)
    # In a separate thread: in a notebook, an event loop is already running in this one.
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, pool.check()).result()
    return RemoteFunction(pool, Sent(columns, len(places), images_per_request, image_format))


def _check(
    urls: Sequence[str], images_per_request: int | None, image_format: str, timeout: float, max_retries: int
) -> None:
    for option, value, fits, allowed in (
        ("urls", urls, urls and all(_is_url(url) for url in urls), "addresses such as 'http://127.0.0.1:8900'"),
        ("urls", urls, len({*urls}) == len(urls), "different addresses"),
        ("images_per_request", images_per_request, images_per_request is None or images_per_request >= 1, "at least 1"),
        ("image_format", image_format, image_format in IMAGE_FORMATS, " or ".join(map(repr, IMAGE_FORMATS))),
        ("timeout", timeout, timeout > 0, "above 0"),
        ("max_retries", max_retries, max_retries >= 0, "at least 0"),
    ):
        if not fits:
            raise PluginError(f"{option} is {value!r}; it must be {allowed}.")


def _is_url(url: Any) -> bool:
    return isinstance(url, str) and url.startswith(("http://", "https://"))


_TEXT = "Computed by `ddpo serve-reward`, in another environment or on another machine."
# With `functools.partial`, the signature still names every option.
REWARDS = [RewardSpec("remote", partial(remote, "reward"), f"The reward that servers have. {_TEXT}")]
DETECTORS = [DetectorSpec("remote", partial(remote, "detector"), f"The detector that servers have. {_TEXT}")]
