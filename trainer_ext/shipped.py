"""The models that ship with the package: their names, and where they lie."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

EMBEDDED = "embedded"  #: the tiny pipeline
EMBEDDED_POSTERS = (
    "embedded-posters"  #: the same with an adapter, from a world in which more words stand for their pictures
)

#: Each by its name, with the folder of the adapter in [`embedded_model`] that belongs to it.
SHIPPED: dict[str, str | None] = {EMBEDDED: None, EMBEDDED_POSTERS: "posters"}


def embedded_model() -> Path:
    """Return the folder of the tiny pipeline that ships with the package."""
    return Path(str(files("trainer_ext"))) / "embedded"
