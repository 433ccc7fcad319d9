"""
Uploads to the Hub that end: every step is tried a few times, for a bounded time, and an error says what to do about it.

Nothing local depends on them. What is uploaded once is not uploaded again, so a later attempt continues where one stopped.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from ..errors import HubAccessError, HubError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Content = Path | bytes
CommitOperation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

WAITS_SECONDS = (1.0, 3.0, 9.0)  #: before the second attempt, the third, ...
PATIENCE_SECONDS = 120.0  #: for an answer, besides the time that its bytes take
SLOWEST_BYTES_PER_SECOND = 100_000
TEMPORARY = frozenset({408, 409, 412, 425, 429, 500, 502, 503, 504})
ABANDONED = (
    threading.Event()
)  #: set if a thread of the client's may still wait, and would keep the program from its end
ADVICE = {
    401: "the token is wrong, or there is none: log in with `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there: use one with the role `write`, and a name under your account or organisation",
    404: "there is no such repository, or the token may not see it",
}


@dataclass(frozen=True)
class Hub:
    """
    A Hub, as one user sees it.

    Parameters:
        token (`str`, *optional*):
            The user's token; by default the one that is logged in, or HF_TOKEN.
        endpoint (`str`, *optional*):
            Address of the Hub; by default huggingface.co, or HF_ENDPOINT.
        patience (`float`, *optional*, defaults to 120):
            Seconds to wait for an answer, besides the time that bytes take.
        waits (`tuple[float, ...]`, *optional*):
            Seconds before each further attempt.
    """

    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    patience: float = PATIENCE_SECONDS
    waits: tuple[float, ...] = WAITS_SECONDS

    @property
    def api(self) -> HfApi:
        """The client."""
        return HfApi(self.endpoint, token=self.token, library_name="ddpo-plugins")

    def full_name(self, name: str) -> str:
        """
        Return `user/name` for a name without a user.

        Raises:
            [`HubAccessError`]: the token is wrong.
        """
        if "/" in name:
            return name
        return f"{self.attempt('ask whose the token is', self.api.whoami)['name']}/{name}"

    def create(self, name: str, kind: str = "model", private: bool | None = None) -> str:
        """
        Create a repository unless it exists; return its full name.

        Raises:
            [`HubAccessError`]: the token is wrong, or may not write there.
            [`HubError`]: the Hub does not answer.
        """
        what = f"create the {kind} {name}"
        url = self.attempt(what, lambda: self.api.create_repo(name, repo_type=kind, private=private, exist_ok=True))
        return str(url.repo_id)

    def commit(
        self,
        name: str,
        files: Mapping[str, Content],
        message: str,
        kind: str = "model",
        revision: str | None = None,
        removed: frozenset[str] = frozenset(),
    ) -> str:
        """
        Upload files in one commit, without those that have not changed; return the commit's name.

        Args:
            name (`str`):
                The repository, `user/name`.
            files (`Mapping[str, Path | bytes]`):
                Content of each file by its path in the repository.
            message (`str`):
                The commit's first line.
            kind (`str`):
                `"model"` or `"dataset"`.
            revision (`str`, *optional*):
                The branch; by default `main`.
            removed (`frozenset[str]`):
                Paths in the repository to remove.

        Raises:
            [`HubAccessError`], [`HubError`]: as [`create`](Hub.create).
        """
        size = sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in files.values())

        def commit() -> str:
            # New ones for every attempt: an operation remembers what an earlier one got to.
            operations: list[CommitOperation] = [CommitOperationDelete(path) for path in removed]
            operations += [CommitOperationAdd(path, str(c) if isinstance(c, Path) else c) for path, c in files.items()]
            done = self.api.create_commit(name, operations, commit_message=message, repo_type=kind, revision=revision)
            return str(done.oid)

        return self.attempt(f"upload to the {kind} {name}", commit, size / SLOWEST_BYTES_PER_SECOND)

    def read(self, name: str, path: str, kind: str = "model", revision: str | None = None) -> str | None:
        """Return the text of a file in a repository; `None` if it has none."""

        def read() -> str | None:
            with tempfile.TemporaryDirectory() as folder:  # no cache: another process may have written since
                try:
                    file = self.api.hf_hub_download(name, path, repo_type=kind, revision=revision, local_dir=folder)
                except EntryNotFoundError:
                    return None
                return Path(file).read_text(encoding="utf-8")

        return self.attempt(f"read {path} of the {kind} {name}", read)

    def branch(self, name: str, branch: str, kind: str = "model") -> None:
        """Create a branch unless it exists."""
        self.attempt(
            f"create the branch {branch} of {name}",
            lambda: self.api.create_branch(name, branch=branch, repo_type=kind, exist_ok=True),
        )

    def tag(self, name: str, tag: str, revision: str | None = None, kind: str = "model") -> None:
        """
        Create a tag.

        Raises:
            [`HubAccessError`]: it exists, and marks something else.
        """

        def create() -> None:
            refs = self.api.list_repo_refs(name, repo_type=kind)
            known = {found.name: found.target_commit for found in [*refs.branches, *refs.tags]}
            if tag not in known:
                self.api.create_tag(name, tag=tag, revision=revision, repo_type=kind)
            elif known[tag] != known.get(revision or "main"):
                raise ValueError(f"{name} has the tag {tag!r} already, on another commit. Choose another name.")

        self.attempt(f"set the tag {tag} of {name}", create)

    def address(self, name: str, kind: str = "model") -> str:
        """Return the address of a repository's page."""
        return f"{self.api.endpoint}/{'' if kind == 'model' else 'datasets/'}{name}"

    def attempt(self, what: str, action: Callable[[], Result], seconds: float = 0.0) -> Result:
        """
        Do something that may fail for a moment: a few times, with waits in between.

        Args:
            what (`str`):
                What is done, after "could not".
            action (`Callable`):
                Does it. Must do no harm if it is done twice.
            seconds (`float`):
                How long its bytes may take, besides the patience that everything gets.

        Raises:
            [`HubAccessError`]: the user must do something first.
            [`HubError`]: all attempts failed.
        """
        for wait in (*self.waits, None):
            try:
                return _within(self.patience + seconds, action)
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
