"""Refuses requests by their headers, before anything of their body is read."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ddpo_plugins.wire import STATUSES, TOKEN, FailureKind


def refusal(kind: FailureKind, message: str) -> JSONResponse:
    """Return the answer that says what went wrong. A server that is busy is worth another attempt a second later."""
    body = {"error": {"kind": kind, "message": message}}
    return JSONResponse(body, STATUSES[kind], {"Retry-After": "1"} if kind == "busy" else None)


class Guard:
    """
    Lets requests through that have the token, if there is one, and whose body is not too large.

    Args:
        app (`ASGIApp`):
            The service behind it.
        token (`str`, *optional*):
            What every request must present.
        max_bytes (`int`):
            Largest body.
    """

    def __init__(self, app: ASGIApp, token: str | None, max_bytes: int):
        self._app = app
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        answer = self._refused(scope) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send)

    def _refused(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        given = headers.get("authorization", "").encode()
        if self._expected is not None and not hmac.compare_digest(given, self._expected):
            return refusal("unauthorized", f"This server wants a token; set {TOKEN} to that of the server.")
        length = headers.get("content-length", "")
        if scope["method"] == "POST" and not length.isdecimal():
            return refusal("no_length", "A request must say its Content-Length.")
        if length.isdecimal() and int(length) > self._max_bytes:
            limit = f"{self._max_bytes / 1e6:g} MB, which --max_megabytes sets"
            return refusal("too_large", f"The request has {int(length) / 1e6:g} MB; the limit is {limit}.")
        return None
