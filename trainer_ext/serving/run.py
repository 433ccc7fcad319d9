"""Runs the service until a signal ends it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from ddpo_plugins.wire import TOKEN

from ..errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

GRACE_SECONDS = 60  #: that batches which are being scored may take after SIGTERM


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_reach(host: str, token: str | None) -> None:
    """
    Refuse to serve other machines without a token.

    Raises:
        [`ConfigError`]: other machines can reach the address, and there is no token.
    """
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines, so requests need a token: set {TOKEN}, here and where the "
            "training runs, to the same long random text. For this machine alone, leave --host at 127.0.0.1."
        )


def listen(host: str, port: int) -> socket.socket:
    """
    Open the socket.

    Raises:
        [`ConfigError`]: the address is taken, or not of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"No server can listen at {host}, port {port}: {error}. Choose another --port or --host."
        ) from error


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Return the server of a service. Once it is told to stop, it takes no new batch, and finishes those that are there."""
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS)
    )


def serve(server: uvicorn.Server, place: socket.socket, on_ready: Callable[[str], None]) -> None:
    """
    Serve until Ctrl-C or SIGTERM.

    Args:
        server (`uvicorn.Server`):
            What [`make_server`] returned.
        place (`socket.socket`):
            Where it listens.
        on_ready (`Callable[[str], None]`):
            Told the address. Connections are accepted from then on.
    """
    host, port = place.getsockname()[:2]
    on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server.run(sockets=[place])
