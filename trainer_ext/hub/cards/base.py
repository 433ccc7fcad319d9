"""The pipeline that a run trained: its name, how it is loaded, and its licence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub.utils import HFValidationError, validate_repo_id  # type: ignore[attr-defined]

from ...shipped import EMBEDDED_POSTERS, SHIPPED, embedded_model
from .markdown import Markdown, escaped
from .readme import licence_of

CACHED = re.compile(r"models--([^/]+)--([^/]+)/snapshots/")  #: in the Hub's cache, the place of user/repo
#: The adapter of the embedded model with posters, as stock diffusers makes it a part of the weights.
POSTERS = f"""pipeline.load_lora_weights(embedded_model() / {SHIPPED[EMBEDDED_POSTERS]!r})
pipeline.fuse_lora()
pipeline.unload_lora_weights()"""
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Base:
    """
    The pipeline that a run trained.

    Parameters:
        name (`str`):
            The name that the card shows.
        hub_id (`str`, *optional*):
            Its id, if it is on the Hub.
        code (`str`):
            The expression by which it is loaded, in Python.
        setting_up (`str`):
            The line of Python that this needs before it; may be empty.
        finishing (`str`):
            The lines of Python that make `pipeline` what was trained, once it is loaded; may be empty.
        licence (`Mapping[str, str]`):
            `license`, `license_name` and `license_link`, as far as they are known.
    """

    name: str
    hub_id: str | None
    code: str
    setting_up: str = ""
    finishing: str = ""
    licence: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, setup: Mapping[str, Any], licence: Mapping[str, str] | None = None) -> Base:
        """
        Describe the base by the record of a run.

        Args:
            setup (`Mapping[str, Any]`):
                An entry of `run.json`.
            licence (`Mapping[str, str]`, *optional*):
                Its licence, where the base is on the Hub; see [`licence_of`]. That of a folder is read from its README.md.
        """
        model, given = str(setup["model"]), dict(licence or {})
        if model in SHIPPED:
            found = licence_of((embedded_model() / "README.md").read_text(encoding="utf-8"))
            importing = "from trainer_ext import embedded_model"
            name = "the embedded model of ddpo-plugins" + (", with posters" if model == EMBEDDED_POSTERS else "")
            finishing = POSTERS if model == EMBEDDED_POSTERS else ""
            return cls(name, None, "embedded_model()", importing, finishing, given or found)
        cached = CACHED.search(f"{model}/")
        if cached is not None:
            model = f"{cached[1]}/{cached[2]}"
        elif Path(model).is_dir() and model:
            card = Path(model) / "README.md"
            found = licence_of(card.read_text(encoding="utf-8")) if card.is_file() else {}
            return cls(Path(model).name, None, repr(f"path/to/{Path(model).name}"), licence=given or found)
        if _is_hub_id(model):
            return cls(model, model, repr(model), licence=given)
        name = Path(model).name or f"a {setup['pipeline']}"
        return cls(name, None, repr(f"path/to/{Path(model).name or 'base'}"), licence=given)

    @property
    def link(self) -> Markdown | str:
        """The name, with a link to its page on the Hub."""
        return self.name if self.hub_id is None else Markdown(f"[{self.hub_id}]({HUB}/{self.hub_id})")

    @property
    def licence_text(self) -> Markdown | None:
        """The licence, with a link to its text if there is one; `None` if it is not known."""
        name = self.licence.get("license_name") or self.licence.get("license")
        link = quote(str(self.licence.get("license_link", "")), safe="/:?=&#%~@+,;")
        if name is None or not link.startswith(("https://", "http://")):
            return None if name is None else escaped(name)
        return Markdown(f"[{escaped(name)}]({link})")


def _is_hub_id(model: str) -> bool:
    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return True
