"""The server: it reads requests, lets faults happen, and finds who answers."""

import json
import re
import threading
import time
import urllib.parse
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from support.loopback_hub.faults import CUT, HANG
from support.loopback_hub.routes import ROUTES
from support.loopback_hub.store import Blobs, HubError


@dataclass(frozen=True)
class Request:
    """What a client asked, by which token, and what it got (`status`; None: nothing)."""

    method: str
    path: str
    body: bytes
    token: str
    status: int | None
    seconds: float


class LoopbackHub:
    """
    A Hub that listens on this machine until the block ends.

    Parameters:
        url (`str`):
            For HF_ENDPOINT.
        token (`str`):
            A token of the user `user` that may write.
        tokens (`dict[str, tuple[str, str]]`):
            User and role ("write" or "read") of each token.
        repos (`dict[tuple[str, str], Repo]`):
            Repositories by kind and name.
        collections (`dict[str, dict]`):
            Collections by slug.
        faults (`list[Fault]`):
            What goes wrong from now on.
        requests (`list[Request]`):
            Everything that was asked.
    """

    token = "hf_canaryOfTheLoopbackHub"
    user = "user"

    def __init__(self, folder):
        self.blobs = Blobs(Path(folder))
        self.tokens = {self.token: (self.user, "write"), "hf_readsOnlyLoopback": (self.user, "read")}
        self.repos, self.collections = {}, {}
        self.faults, self.requests = [], []
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def environment(self):
        """Variables of a process that uses this Hub, with its token."""
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": self.token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

    def repo(self, name, kind="model"):
        return self.repos[kind, name]

    def files(self, name, kind="model", revision="main"):
        """Return the contents of a repository's files by path."""
        _, tree = self.repo(name, kind).at(revision)
        return {path: self.blobs.get(file.sha256) for path, file in tree.items()}

    def asked(self, method, path):
        """Return the requests with this method whose path contains a text."""
        return [request for request in self.requests if request.method == method and path in request.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # which waits 0.04 s for each answer of two packets
    hub: LoopbackHub

    def log_message(self, *arguments):
        pass

    def _answer(self):
        start, self.sent = time.monotonic(), None
        self.route, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        self.body = self._read()
        fault = next((fault for fault in self.hub.faults if fault.hits(self.command, self.route)), None)
        try:
            if fault is None or fault.after:
                self._carry_out(silent=fault is not None)
            if fault is not None:
                self._fail(fault.what)
        except HubError as error:
            headers = {"X-Error-Message": error.message, **({"X-Error-Code": error.code} if error.code else {})}
            self.send(error.status, {"error": error.message}, headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        request = Request(self.command, self.path, self.body, self.token(), self.sent, time.monotonic() - start)
        self.hub.requests.append(request)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

    def _read(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _carry_out(self, silent):
        for method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and self.command in method.split():
                self.silent = silent
                with self.hub.lock:
                    answer(self, **{k: urllib.parse.unquote(v) if v else v for k, v in match.groupdict().items()})
                self.silent = False
                return
        raise HubError(404, f"the loopback Hub has no {self.command} {self.route}")

    silent = False

    def _fail(self, what):
        if what == HANG:
            self.hub.stopping.wait()
        if what in (CUT, HANG):
            self.close_connection = True
            return
        raise HubError(what, "injected")

    def send(self, status, body=b"", headers=None):
        """Answer."""
        if self.silent:
            return
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.sent = status
        self.send_response(status)
        every = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
        for name, value in every.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def json(self):
        """Return what the client sent."""
        return json.loads(self.body or b"{}")

    def token(self):
        """Return the token of the request; empty without."""
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip()

    def user(self, required=True):
        """Return the name of the user, by the token."""
        name, _ = self.hub.tokens.get(self.token(), (None, None))
        if required and name is None:
            raise HubError(401, "Invalid username or password.")
        return name

    def role(self):
        """Return what the token allows."""
        return self.hub.tokens[self.token()][1]

    def find(self, kind, name, write=False):
        """Return a repository that the user may see, or write."""
        repo = self.hub.repos.get(({"models": "model", "datasets": "dataset"}[kind], name))
        user = self.user(required=write)
        if repo is None or (repo.private and user != repo.owner):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and (user != repo.owner or self.role() != "write"):
            raise HubError(403, f"Forbidden: you don't have the rights to write to {name}")
        return repo
