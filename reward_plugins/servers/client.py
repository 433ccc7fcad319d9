"""One server of `ddpo serve-reward`: what it is asked, what it may answer, and what each failure means."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from ddpo_plugins import RewardError
from ddpo_plugins.contract import check_detections, check_rewards
from ddpo_plugins.masking import masked_message, remember_secrets
from ddpo_plugins.wire import HEALTH, PROTOCOL, SCORE, STATUSES, TOKEN, Reply, Request

RETRIED = (408, 429, 500, 502, 503, 504)  #: statuses after which another server, or a later attempt, may succeed
CHECKS = {"reward": check_rewards, "detector": check_detections}
ADVICE = {
    STATUSES["unauthorized"]: f"Set the server's token in the environment: {TOKEN}.",
    STATUSES["not_found"]: "Correct `urls`, which have no path, or `function`.",
    STATUSES["bad_request"]: "The server may have another version of ddpo-plugins: install the same there.",
    STATUSES["too_large"]: "Start the server with a larger --max_megabytes, or set `images_per_request`.",
    STATUSES["reward_failed"]: "Repair it there, start the server again, and resume from the last checkpoint.",
}


class LostError(Exception):
    """
    This attempt failed; another server, or a later attempt, may succeed.

    Args:
        text (`str`):
            What happened.
        retry_after (`str`):
            Seconds that the server asks to wait for; empty if it does not.
    """

    def __init__(self, text: str, retry_after: str = ""):
        super().__init__(masked_message(text))
        self.retry_after = retry_after


def open_client() -> httpx.AsyncClient:
    """Return a client with the token. It belongs to the event loop that uses it, so none is kept between calls."""
    token = os.environ.get(TOKEN, "")
    remember_secrets({TOKEN: token})
    return httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=None)


async def fetch(client: httpx.AsyncClient, url: str, timeout: float, body: bytes | None = None) -> Any:
    """
    Send one request, and return the JSON of its answer.

    Args:
        client (`httpx.AsyncClient`):
            What [`open_client`] returned.
        url (`str`):
            The address with its path.
        timeout (`float`):
            Seconds from connecting to the last byte: a server that sends a byte now and then is slow, too.
        body (`bytes`, *optional*):
            JSON to post.

    Raises:
        [`LostError`]: there was no answer in time, or one after which another attempt may succeed.
        [`RewardError`]: the server refused.
    """
    try:
        sent = client.get(url) if body is None else client.post(url, content=body, headers=JSON)
        answer = await asyncio.wait_for(sent, timeout)
    except TimeoutError:
        raise LostError(f"no answer in {timeout:g} s") from None
    except httpx.InvalidURL as fault:
        raise RewardError(f"{url!r} is no address: {fault}. Write for example 'http://127.0.0.1:8900'.") from None
    except httpx.HTTPError as fault:
        raise LostError(f"{type(fault).__name__}: {fault}") from None
    if answer.status_code in RETRIED:
        raise LostError(_said(answer), answer.headers.get("retry-after", ""))
    if answer.status_code != httpx.codes.OK:
        advice = ADVICE.get(answer.status_code, "See the server's log.")
        raise RewardError(f"The server at {url} refused: {_said(answer)} {advice}")
    try:
        return answer.json()
    except (ValueError, RecursionError) as fault:
        raise LostError(f"an answer that is no JSON: {fault}") from None


JSON = {"Content-Type": "application/json"}


def _said(answer: httpx.Response) -> str:
    """Return status and message of a refusal. Proxies between may answer with anything."""
    try:
        text = answer.json()["error"]["message"]
    except (ValueError, RecursionError, LookupError, TypeError):
        text = answer.reason_phrase
    return f"{answer.status_code} {masked_message(str(text))[:2000].rstrip('.')}."


async def describe(client: httpx.AsyncClient, url: str, kind: str, name: str, timeout: float) -> dict[str, Any]:
    """
    Return the function that a server has under a name.

    Raises:
        [`LostError`]: the server does not answer.
        [`RewardError`]: it has none of this name, or another version of the protocol.
    """
    health = await fetch(client, url + HEALTH, timeout)
    try:
        protocol, functions = health["protocol"], {(each["kind"], each["name"]): each for each in health["functions"]}
    except (LookupError, TypeError) as error:
        raise RewardError(f"What answers at {url} is no `ddpo serve-reward`. Correct `urls`.") from error
    if protocol != PROTOCOL:
        raise RewardError(
            f"The server at {url} speaks version {protocol!r} of the protocol, this is {PROTOCOL}. Install the same version of "
            "ddpo-plugins in both environments."
        )
    if (kind, name) not in functions:
        names = ", ".join(f"{kind} {name!r}" for kind, name in functions) or "none"
        raise RewardError(f"The server at {url} has no {kind} {name!r}; it has {names}. Correct `function` or `urls`.")
    return dict(functions[kind, name])


async def score(
    client: httpx.AsyncClient, url: str, request: Request, body: bytes, served: Mapping[str, Any], timeout: float
) -> Reply:
    """
    Have B images scored by one server.

    Args:
        client (`httpx.AsyncClient`):
            What [`open_client`] returned.
        url (`str`):
            The server's address.
        request ([`Request`]), body (`bytes`):
            What is asked, and the same as JSON.
        served (`Mapping[str, Any]`):
            The function that must answer.
        timeout (`float`):
            Seconds for all of it.

    Raises:
        [`LostError`]: see [`fetch`].
        [`RewardError`]: the server refused, or its answer breaks the contract of rewards, or comes from another function.
    """
    reply = await fetch(client, url + SCORE, timeout, body)
    try:
        now, values = reply["served"], reply["values"]
        metrics, extras = dict(reply["metrics"]), dict(reply["extras"])
    except (LookupError, TypeError, ValueError) as error:
        raise RewardError(
            f"The server at {url} answered without values. Install the same ddpo-plugins there."
        ) from error
    if now != served:
        raise RewardError(
            f"The server at {url} no longer serves what it did when the run began: {differences(served, now)}. Start it as it "
            "was, or begin another run."
        )
    try:
        CHECKS[request["kind"]](request["name"], values, request["prompts"])
    except RewardError as error:
        raise RewardError(f"The server at {url} breaks the contract of rewards: {error}") from error
    return Reply(served=now, values=values, metrics=metrics, extras=_one_each(url, extras, len(values)))


def _one_each(url: str, extras: dict[str, Any], count: int) -> dict[str, list[Any]]:
    for name, values in extras.items():
        if not isinstance(values, list) or len(values) != count:
            raise RewardError(f"The server at {url} did not log one value of {name!r} for each of {count} images.")
    return extras


def differences(old: Mapping[str, Any], new: Any) -> str:
    """Name the fields in which two descriptions of a function differ."""
    if not isinstance(new, Mapping):
        return f"it says {type(new).__name__}"
    fields = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)!r} -> {new.get(name)!r}" for name in fields)


def encode(request: Request) -> tuple[Request, bytes]:
    """
    Return a request, and the same as JSON.

    Raises:
        [`RewardError`]: a column holds something that JSON does not have.
    """
    for name, values in request["columns"].items():
        _check_json(name, values)
    return request, json.dumps(request).encode()


def _check_json(name: str, values: Sequence[Any]) -> None:
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RewardError(
            f"The column {name!r} cannot be sent to a server: {error}. JSON has texts, finite numbers, lists and objects. Name "
            "the columns that the reward needs: `columns`."
        ) from error
