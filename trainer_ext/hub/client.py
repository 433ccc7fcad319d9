"""
The Hub, as one user sees it: repositories, commits, branches, tags.

What is uploaded once is not uploaded again, so a later attempt continues where one stopped.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.hf_api import RepoFile

from .attempts import PATIENCE_SECONDS, WAITS_SECONDS, attempt

Result = TypeVar("Result")
Content = Path | bytes
CommitOperation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

SLOWEST_BYTES_PER_SECOND = 100_000


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

    def paths(self, name: str, folder: str = "", revision: str | None = None, kind: str = "model") -> dict[str, str]:
        """
        Return the files below a folder of a repository, each with what identifies its content: git's name of the blob, or for a
        large file its SHA-256. See [`digests_of`].
        """

        def found() -> dict[str, str]:
            try:
                tree = list(
                    self.api.list_repo_tree(name, folder or None, recursive=True, revision=revision, repo_type=kind)
                )
            except EntryNotFoundError:
                return {}
            files = [entry for entry in tree if isinstance(entry, RepoFile)]
            return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}

        return self.attempt(f"list the {kind} {name}", found)

    def download(self, name: str, pattern: str, folder: Path, revision: str | None = None) -> None:
        """Download the files of a repository whose paths match a pattern."""
        self.attempt(
            f"download {name}",
            lambda: self.api.snapshot_download(name, allow_patterns=pattern, local_dir=folder, revision=revision),
            seconds=3600.0,
        )

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

    def collect(self, title: str, items: Sequence[tuple[str, str]], private: bool | None = None) -> None:
        """Add repositories (kind, name) to a collection of the user's, which is created unless it exists."""

        def collect() -> None:
            found = self.api.create_collection(title, private=bool(private), exists_ok=True)
            for kind, name in items:
                self.api.add_collection_item(
                    found.slug, name, "dataset" if kind == "dataset" else "model", exists_ok=True
                )

        self.attempt(f"collect {', '.join(name for _, name in items)}", collect)

    def address(self, name: str, kind: str = "model") -> str:
        """Return the address of a repository's page."""
        return f"{self.api.endpoint}/{'' if kind == 'model' else 'datasets/'}{name}"

    def attempt(self, what: str, action: Callable[[], Result], seconds: float = 0.0) -> Result:
        """
        Do something that may fail for a moment. See [`attempts.attempt`](attempt); `seconds` come on top of the patience.

        Raises:
            [`HubAccessError`], [`HubError`]: it failed for good.
        """
        return attempt(what, action, self.patience + seconds, self.waits)


def digests_of(file: Path) -> tuple[str, str]:
    """Return what may identify a file's content on the Hub: git's name of the blob, and its SHA-256."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), hashlib.sha256(content).hexdigest()
