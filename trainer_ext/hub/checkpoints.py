"""Checkpoints on the Hub: pushed without pickles, checked there, and fetched to be resumed from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..errors import CheckpointError, ConfigError, HubError
from ..file_names import STAGING
from ..runs.folder import RunFolder
from ..runs.manifest import find_damage
from ..runs.plain import is_plain, restore, write_plain
from .client import Hub, digests_of

SCHEME = "hf://"
LAST = "last-checkpoint"  #: the folder in a repository of a run's newest checkpoint, as `Trainer` names it
STATE = "trainer_state.json"


def push_checkpoints(
    hub: Hub, name: str, folder: RunFolder, which: str, chosen: Path | None = None, revision: str | None = None
) -> None:
    """
    Push what a run can be resumed from.

    Args:
        hub ([`Hub`]):
            The Hub to push to.
        name (`str`):
            The repository, `user/name`.
        folder ([`RunFolder`]):
            The run.
        which (`str`):
            `"last"` (the chosen one, as `last-checkpoint`) or `"all"` (each that is whole, by its name).
        chosen (`Path`, *optional*):
            A checkpoint; by default the newest.
        revision (`str`, *optional*):
            The branch.

    Raises:
        [`ConfigError`]: there is none.
        [`HubError`]: as [`push_checkpoint`].
    """
    if which == "all":
        places = {path: path.name for path in folder.checkpoints() if find_damage(path) is None}
    else:
        newest = chosen or folder.newest()
        places = {} if newest is None else {newest: LAST}
    if not places:
        raise ConfigError(f"{folder.path} has no checkpoint that is whole, so none can be pushed.")
    for checkpoint, place in places.items():
        push_checkpoint(hub, name, checkpoint, place, revision)


def push_checkpoint(hub: Hub, name: str, checkpoint: Path, place: str, revision: str | None = None) -> None:
    """
    Push a checkpoint into a folder of a repository, and check that it is there as it is here.

    Args:
        hub ([`Hub`]):
            The Hub to push to.
        name (`str`):
            The repository, `user/name`.
        checkpoint (`Path`):
            The checkpoint.
        place (`str`):
            The folder in the repository; files that are in it and no longer in the checkpoint are removed.
        revision (`str`, *optional*):
            The branch.

    Raises:
        [`CheckpointError`]: the checkpoint is damaged.
        [`HubError`]: it could not be pushed, or is not there as it is here.
    """
    plain = checkpoint.parent / STAGING / checkpoint.name
    plain.parent.mkdir(exist_ok=True)
    write_plain(checkpoint, plain)
    try:
        files = {f"{place}/{path.relative_to(plain).as_posix()}": path for path in plain.rglob("*") if path.is_file()}
        stale = frozenset(hub.paths(name, place, revision)) - files.keys()
        hub.commit(name, files, f"{checkpoint.name}, to resume from", revision=revision, removed=stale)
        _check_there(hub, name, files, place, revision)
    finally:
        shutil.rmtree(plain, ignore_errors=True)


def _check_there(hub: Hub, name: str, files: Mapping[str, Path], place: str, revision: str | None) -> None:
    there = hub.paths(name, place, revision)
    different = [path for path, file in files.items() if there.get(path) not in digests_of(file)]
    if different or there.keys() != files.keys():
        found = (different or sorted(there.keys() ^ files.keys()))[0]
        raise HubError(f"{found} is not in {name} as it is here; push again")


def fetch_checkpoint(address: str, output_dir: Path, hub: Hub | None = None) -> Path:
    """
    Bring a checkpoint from the Hub into a run's folder.

    Args:
        address (`str`):
            `hf://user/name`, with `@revision` if it is not on `main`, and `/checkpoint-N` or `/last-checkpoint` if it is not
            the newest.
        output_dir (`Path`):
            The run's folder.
        hub ([`Hub`], *optional*):
            The Hub to fetch from.

    Returns:
        `Path`: the checkpoint, `output_dir/checkpoint-N`.

    Raises:
        [`CheckpointError`]: there is none, or it is damaged.
        [`HubError`]: the Hub does not answer.
    """
    hub = hub or Hub()
    repo, place, revision = _parsed(address)
    found = sorted(
        {path.split("/")[0] for path in hub.paths(repo, "", revision) if path.endswith(f"/{STATE}")}, key=_age
    )
    if (place or LAST) not in found and (place or not found):
        raise CheckpointError(
            f"{address} holds no {place or 'checkpoint'}; there are: {', '.join(found) or 'none'}. Runs push theirs with "
            "hub_strategy='checkpoint' or 'all_checkpoints', or by `ddpo push RUN --checkpoints last`."
        )
    place = place or found[-1]
    fetched = output_dir / STAGING / "fetched"
    shutil.rmtree(fetched, ignore_errors=True)
    hub.download(repo, f"{place}/*", fetched, revision)
    try:
        return restored(fetched / place, output_dir)
    finally:
        shutil.rmtree(fetched, ignore_errors=True)


def restored(plain: Path, output_dir: Path) -> Path:
    """
    Turn a checkpoint without pickles into one of a run's folder.

    Raises:
        [`CheckpointError`]: it is damaged.
    """
    problem = find_damage(plain)
    if problem is not None:
        raise CheckpointError(f"{plain} cannot be resumed from: {problem}. Fetch it again, or name another one.")
    updates = int(json.loads((plain / STATE).read_text(encoding="utf-8"))["global_step"])
    checkpoint = output_dir / f"checkpoint-{updates}"
    restore(plain, checkpoint)
    return checkpoint


def local_checkpoint(resume_from: str, output_dir: Path, hub: Hub | None = None) -> str:
    """
    Return a checkpoint on this machine for what a user resumes from: an address on the Hub, a folder that `hf download` made, or
    a checkpoint, which is returned as it is.

    Raises:
        [`CheckpointError`], [`HubError`]: as [`fetch_checkpoint`].
    """
    if resume_from.startswith(SCHEME):
        return str(fetch_checkpoint(resume_from, output_dir, hub))
    folder = Path(resume_from)
    for plain in (folder, folder / LAST):
        if is_plain(plain):
            return str(restored(plain, output_dir))
    return resume_from


def _parsed(address: str) -> tuple[str, str | None, str | None]:
    """Return repository, folder and revision of an address."""
    parts = address.removeprefix(SCHEME).split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise CheckpointError(
            f"{address!r} is no address; it must be hf://user/name, hf://user/name@revision or hf://user/name/{LAST}."
        )
    user, named, *place = parts
    name, _, revision = named.partition("@")
    return f"{user}/{name}", place[0] if place else None, revision or None


def _age(place: str) -> tuple[bool, int]:
    """Order the checkpoints of a repository, the newest last."""
    number = place.removeprefix("checkpoint-")
    return place == LAST, int(number) if number.isdigit() else -1
