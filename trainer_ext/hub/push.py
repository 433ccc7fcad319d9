"""From a run's folder to repositories on the Hub, in any process and on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..file_names import LORA_FILE, PEFT_FILE
from ..runs.folder import RunFolder
from ..runs.manifest import find_damage
from .card import adapter_card, adapter_files
from .upload import Content, Hub

CARD = "README.md"
WEIGHTS = (LORA_FILE, PEFT_FILE, "adapter_config.json")


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
            The checkpoint whose adapter is pushed; by default the adapter at the end of the run, or the newest checkpoint's.
        tag (`str`, *optional*):
            A tag for this state of the repository.
        message (`str`, *optional*):
            First line of the commit.
    """

    folder: RunFolder
    repo: str
    private: bool | None = None
    revision: str | None = None
    update: int | None = None
    tag: str | None = None
    message: str | None = None

    def adapter(self, hub: Hub, dataset: str | None = None) -> str:
        """
        Push the adapter, its card and its pictures; return the address of the repository.

        Args:
            hub ([`Hub`]):
                Where to.
            dataset (`str`, *optional*):
                The dataset of the run, for the card.

        Raises:
            [`ConfigError`]: the run has no such adapter.
            [`HubAccessError`], [`HubError`]: it could not be pushed.
        """
        files = dict(self._adapter_files())
        name = hub.create(hub.full_name(self.repo), private=self.private)
        self._branch(hub, name, "model")
        existing = hub.read(name, CARD, revision=self.revision)
        files[CARD] = adapter_card(self.folder, name, dataset, existing).encode()
        hub.commit(name, files, self._message(), revision=self.revision)
        if self.tag is not None:
            hub.tag(name, self.tag, self.revision)
        return hub.address(name)

    @property
    def title(self) -> str:
        """What is pushed, for messages."""
        return "The adapter" if self.update is None else f"The adapter after update {self.update}"

    def _adapter_files(self) -> Mapping[str, Content]:
        """Return the files of the adapter's repository, with the weights that are meant."""
        files = dict(adapter_files(self.folder))
        source = self._source()
        if source is not None:
            files.update({name: source / name for name in WEIGHTS if (source / name).is_file()})
        if not any(name in files for name in WEIGHTS):
            raise ConfigError(
                f"{self.folder.path} holds no adapter ({LORA_FILE}), and no checkpoint that is whole. Give the output folder of "
                "a run; one with full_finetuning is a pipeline, which `hf upload` takes as it is."
            )
        return files

    def _source(self) -> Path | None:
        """Return the checkpoint whose adapter is meant; `None`: the one at the end of the run."""
        if self.update is None:
            at_the_end = any((self.folder.path / name).is_file() for name in WEIGHTS)
            return None if at_the_end else self.folder.newest()
        checkpoint = self.folder.path / f"checkpoint-{self.update}"
        problem = find_damage(checkpoint) if checkpoint.is_dir() else "there is no such folder"
        if problem is not None:
            there = ", ".join(str(path.name) for path in self.folder.checkpoints()) or "none"
            raise ConfigError(f"{checkpoint} cannot be pushed: {problem}. Checkpoints of this run: {there}.")
        return checkpoint

    def _branch(self, hub: Hub, name: str, kind: str) -> None:
        if self.revision is not None:
            hub.branch(name, self.revision, kind)

    def _message(self) -> str:
        moment = "End of training" if self.update is None else f"Training in progress, update {self.update}"
        return self.message or moment


def command(push: Push) -> list[str]:
    """Return the command that does a push, now or later."""
    options = {"update": push.update, "revision": push.revision, "tag": push.tag, "message": push.message}
    flags = [text for name, value in options.items() if value is not None for text in (f"--{name}", str(value))]
    private = ["--private"] if push.private else []
    return ["ddpo", "push", str(push.folder.path), "--repo", push.repo, *flags, *private]
