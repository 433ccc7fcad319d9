"""A push's commit: the files of now, and without those of an earlier push that are no longer among them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .client import Content, Hub

CARD = "README.md"
PUSHED = "ddpo_files.json"  #: in a repository: the files that the last push wrote; all others are a person's
KEPT = {CARD, PUSHED}  #: never removed, nor listed


def upload(
    hub: Hub,
    name: str,
    files: Mapping[str, Content],
    message: str,
    kind: str = "model",
    revision: str | None = None,
) -> None:
    """
    Upload files in one commit, which removes what an earlier push wrote and this one does not, such as shards of another run.

    Args:
        hub ([`Hub`]):
            The Hub to push to.
        name, files, message, kind, revision:
            As for [`Hub.commit`].

    Raises:
        [`HubAccessError`], [`HubError`]: it could not be pushed.
    """
    stale = _listed(hub.read(name, PUSHED, kind, revision)) - files.keys()
    if stale:
        stale &= hub.paths(name, "", revision, kind).keys()
    content = {**files, PUSHED: f"{json.dumps(sorted(files.keys() - KEPT), indent=1)}\n".encode()}
    hub.commit(name, content, message, kind, revision, frozenset(stale))


def _listed(text: str | None) -> set[str]:
    """Return the files of the last push; none without a list, or if a person made something else of it."""
    try:
        listed = json.loads(text or "[]")
    except ValueError:
        return set()
    return {path for path in listed if isinstance(path, str)} - KEPT if isinstance(listed, list) else set()
