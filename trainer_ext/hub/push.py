"""From a run's folder to repositories on the Hub, in any process and on any machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, HubError
from ..loop.describing import describing
from ..runs.folder import RunFolder
from ..runs.manifest import find_damage
from .card import adapter_card, adapter_files
from .cards.base import Base
from .cards.readme import licence_of
from .cards.results import Results
from .cards.weights import Weights
from .client import Content, Hub
from .dataset import dataset_card, dataset_files
from .kohya import remove_kohya_file, write_kohya_file
from .upload import CARD, upload

DATASET = "-images"  #: end of the name of a dataset, after that of the adapter


@dataclass(frozen=True)
class Push:
    """
    What to push of a run, and where to.

    Parameters:
        folder ([`RunFolder`]):
            The run's folder.
        repo (`str`):
            Repository of the adapter: `user/name`, or a name in the user's own account.
        private (`bool`, *optional*):
            Whether repositories that are created are private; by default as the account's settings say.
        revision (`str`, *optional*):
            The branch; by default `main`.
        update (`int`, *optional*):
            The checkpoint whose adapter is pushed; by default the newest adapter, see [`Weights.of`].
        tag (`str`, *optional*):
            A tag for this state of the repository.
        message (`str`, *optional*):
            First line of the commit.
        checkpoints (`str`, *optional*):
            Checkpoints to resume from that are pushed too: `"last"` (the one that is meant, as `last-checkpoint`) or `"all"`
            (each that is whole, by its name).
    """

    folder: RunFolder
    repo: str
    private: bool | None = None
    revision: str | None = None
    update: int | None = None
    tag: str | None = None
    message: str | None = None
    checkpoints: str | None = None

    def adapter(self, hub: Hub, dataset: str | None = None) -> str:
        """
        Push the adapter, its card and its pictures; return the name of the repository.

        Args:
            hub ([`Hub`]):
                The Hub to push to.
            dataset (`str`, *optional*):
                The dataset of the run, for the card.

        Raises:
            [`ConfigError`]: the run has no such adapter.
            [`HubAccessError`], [`HubError`]: it could not be pushed.
        """
        weights = Weights.of(self.folder, self._checkpoint())
        write_kohya_file(weights)
        chosen = weights.folder  # also if a training completes a newer checkpoint meanwhile
        try:
            files: dict[str, Content] = dict(adapter_files(self.folder, chosen))
            name = self._create(hub, "model")
            existing, licence = hub.read(name, CARD, revision=self.revision), self._base_licence(hub)
            with describing("The card"):
                files[CARD] = adapter_card(self.folder, name, dataset, existing, chosen, licence).encode()
            upload(hub, name, files, self._message(weights.updates), revision=self.revision)
        finally:
            remove_kohya_file(weights)
        self._push_checkpoints(hub, name)
        if self.tag is not None:
            hub.tag(name, self.tag, self.revision)
        return name

    def dataset(self, hub: Hub, adapter: str | None = None) -> str:
        """
        Push the images of the run with their rewards, and a card; return the name of the repository.

        Args:
            hub ([`Hub`]):
                The Hub to push to.
            adapter (`str`, *optional*):
                The repository of the run's adapter, for the card.

        Raises:
            [`ConfigError`]: the run has no images.
            [`HubAccessError`], [`HubError`]: as [`adapter`](Push.adapter).
        """
        files: dict[str, Content] = dict(dataset_files(self.folder))
        name = self._create(hub, "dataset")
        existing = hub.read(name, CARD, "dataset", self.revision)
        licence = self._base_licence(hub)
        with describing("The card"):
            files[CARD] = dataset_card(self.folder, name, adapter, existing, licence).encode()
        upload(hub, name, files, self._message(self.update), "dataset", self.revision)
        if self.tag is not None:
            hub.tag(name, self.tag, self.revision, "dataset")
        return name

    def both(self, hub: Hub) -> tuple[str, str]:
        """
        Push both, each with a link to the other, and collect them with the base; return the repositories' names.

        Raises:
            [`ConfigError`], [`HubAccessError`], [`HubError`]: as [`adapter`](Push.adapter) and [`dataset`](Push.dataset).
        """
        adapter = hub.full_name(self.repo)
        dataset = self.dataset(hub, adapter)
        self.adapter(hub, dataset)
        base = self._base
        items = [("model", adapter), ("dataset", dataset), *([("model", base)] if base else [])]
        hub.collect(f"{adapter.partition('/')[2]} by DDPO", items, self.private)
        return adapter, dataset

    def _create(self, hub: Hub, kind: str) -> str:
        """Create the repository and the branch, unless they exist; return the repository's name."""
        name = hub.create(hub.full_name(self.repo + (DATASET if kind == "dataset" else "")), kind, self.private)
        if self.revision is not None:
            hub.branch(name, self.revision, kind)
        return name

    @property
    def _base(self) -> str | None:
        """The base's repository on the Hub; `None` if it is elsewhere."""
        return Base.of(Results(self.folder).setup).hub_id

    def _base_licence(self, hub: Hub) -> dict[str, str] | None:
        """Return the licence of a base on the Hub; `None` where it is elsewhere, or does not say."""
        try:
            text = None if self._base is None else hub.read(self._base, CARD)
        except HubError:  # a private or removed base keeps nothing from being pushed
            return None
        return licence_of(text) if text else None

    def _push_checkpoints(self, hub: Hub, name: str) -> None:
        """Push what the run can be resumed from."""
        if self.checkpoints is not None:
            from .checkpoints import push_checkpoints  # needs torch

            push_checkpoints(hub, name, self.folder, self.checkpoints, self._checkpoint(), self.revision)

    @property
    def title(self) -> str:
        """What is pushed, for messages."""
        return "The adapter" if self.update is None else f"The adapter after update {self.update}"

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint whose adapter is meant; `None`: the newest adapter."""
        return None if self.update is None else self.folder.path / f"checkpoint-{self.update}"

    def _checkpoint(self) -> Path | None:
        """
        Return the checkpoint whose adapter is meant.

        Raises:
            [`ConfigError`]: it is damaged, or not there.
        """
        checkpoint = self.checkpoint
        if checkpoint is None:
            return None
        problem = find_damage(checkpoint) if checkpoint.is_dir() else "there is no such folder"
        if problem is not None:
            there = ", ".join(str(path.name) for path in self.folder.checkpoints()) or "none"
            raise ConfigError(f"{checkpoint} cannot be pushed: {problem}. Checkpoints of this run: {there}.")
        return checkpoint

    def _message(self, update: int | None) -> str:
        moment = "End of training" if update is None else f"Training in progress, update {update}"
        return self.message or moment


def command(push: Push, dataset: bool = False) -> list[str]:
    """
    Return the command that does a push, now or later.

    Args:
        push ([`Push`]):
            The push.
        dataset (`bool`):
            True pushes the images, False the adapter.
    """
    options = {
        "update": push.update,
        "checkpoints": push.checkpoints,
        "revision": push.revision,
        "tag": push.tag,
        "message": push.message,
    }
    flags = [text for name, value in options.items() if value is not None for text in (f"--{name}", str(value))]
    flags += [flag for flag, given in (("--private", push.private), ("--dataset", dataset)) if given]
    return ["ddpo", "push", str(push.folder.path), "--repo", push.repo, *flags]
