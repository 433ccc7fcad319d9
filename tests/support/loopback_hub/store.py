"""What a Hub holds: blobs by their hash, in a folder, and repositories in memory."""

import fnmatch
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

#: As in the .gitattributes that the Hub writes into a new repository.
LFS_PATTERNS = ("*.safetensors", "*.parquet", "*.bin", "*.pt", "*.arrow", "*.zip", "*.tar")
LFS_SIZE = 10 * 1024 * 1024  # from this size on, whatever the name


class HubError(Exception):
    """An answer other than success: its status, its message, and the code by which clients tell errors apart."""

    def __init__(self, status, message, code=None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


@dataclass(frozen=True)
class File:
    """A file of a commit. `oid` is git's name of the blob; for LFS, of the pointer."""

    sha256: str
    size: int
    oid: str
    lfs: bool


class Blobs:
    """Contents by their SHA-256."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, data):
        name = hashlib.sha256(data).hexdigest()
        (self.folder / name).write_bytes(data)
        return name

    def get(self, sha256):
        return (self.folder / sha256).read_bytes()

    def size(self, sha256):
        """None if there is no such blob."""
        path = self.folder / sha256
        return path.stat().st_size if path.exists() else None

    def all(self):
        """Every byte that was ever uploaded, also of commits that failed."""
        return [path.read_bytes() for path in sorted(self.folder.iterdir())]


def regular(blobs, data):
    return File(blobs.put(data), len(data), _git_name(data), lfs=False)


def large(sha256, size):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return File(sha256, size, _git_name(pointer), lfs=True)


def is_large(path, size):
    return size >= LFS_SIZE or any(fnmatch.fnmatch(path.split("/")[-1], pattern) for pattern in LFS_PATTERNS)


def _git_name(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Commit:
    tree: dict
    title: str
    author: str
    parent: str | None
    date: str


@dataclass
class Repo:
    """A repository: its commits, its branches, its tags."""

    kind: str  # "model" or "dataset"
    name: str
    private: bool = False
    commits: dict = field(default_factory=dict)
    branches: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)

    @property
    def owner(self):
        return self.name.split("/")[0]

    @property
    def prefix(self):
        return "" if self.kind == "model" else f"{self.kind}s/"

    def commit(self, tree, title, branch, author):
        parent = self.branches.get(branch)
        content = [sorted((path, file.sha256) for path, file in tree.items()), title, parent, time.time_ns()]
        name = hashlib.sha1(json.dumps(content).encode()).hexdigest()
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        self.commits[name] = Commit(tree, title, author, parent, date)
        self.branches[branch] = name
        return name

    def at(self, revision):
        """Return the name of a commit and its files."""
        name = self.branches.get(revision) or self.tags.get(revision) or revision
        if name not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return name, self.commits[name].tree

    def history(self, revision="main"):
        """Return the commits, newest first, with their names."""
        name, _ = self.at(revision)
        found = []
        while name:
            found.append((name, self.commits[name]))
            name = self.commits[name].parent
        return found
