"""What is known of one reward, detector or prompt set: its options with their defaults, and what it downloads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ddpo_plugins.catalogue import Offer

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
NUM_PROMPTS = 5  # that are shown of a set


def downloads_of(factory: Callable[..., Any]) -> list[str]:
    """Return the ids on the Hub among the defaults of a factory: what it downloads, unless its options name something else."""
    defaults = (value.default for value in inspect.signature(factory).parameters.values())
    return [value for value in defaults if isinstance(value, str) and HUB_ID.fullmatch(value)]


def downloaded(repositories: Sequence[str]) -> str:
    """Return a sentence on what is downloaded from the Hub, and what of it is there already."""
    if not repositories:
        return "Nothing is downloaded: this works offline."
    each = ", ".join(f"{name} ({'here' if is_cached(name) else 'not here yet'})" for name in repositories)
    return f"Downloaded from the Hub when it is first used: {each}."


def is_cached(repository: str) -> bool:
    """Return whether something of a repository was downloaded already."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repository, repo_type="model")
    return any((Path(constants.HF_HUB_CACHE) / folder / "snapshots").glob("*"))


def options_of(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the options of a factory, without the device, which the trainer gives."""
    return {name: value for name, value in inspect.signature(factory).parameters.items() if name != "device"}


def describe(offer: Offer[Any]) -> str:
    """Return a page about an offer of a plugin."""
    spec = offer.spec
    lines = [f"{spec.name}: {offer.kind} of {offer.distribution} {offer.version}", " ".join(spec.description.split())]
    lines += _prompts(spec.rows()) if offer.kind == "prompt set" else []
    lines += _factory(offer.kind, spec) if offer.kind in ("reward", "detector") else []
    return "\n".join(lines)


def _prompts(rows: Any) -> list[str]:
    shown = list(islice(rows, NUM_PROMPTS))
    columns = ", ".join(shown[0]) if shown else "none"
    return [f"columns: {columns}", *(f"  {row['prompt']}" for row in shown), "  ..."]


def _factory(kind: str, spec: Any) -> list[str]:
    options = options_of(spec.factory)
    rows = [
        f"  {name}{'' if value.default is value.empty else f' = {value.default!r}'}" for name, value in options.items()
    ]
    example = next(iter(options), None)
    use = f"--reward_funcs {spec.name}" if kind == "reward" else f"--detectors {spec.name}"
    given = f""" --reward_kwargs '{{"{spec.name}": {{"{example}": ...}}}}'""" if example else ""
    document = inspect.getdoc(spec.factory) if options else None
    return [
        *(["options:", *rows] if rows else ["It has no options."]),
        downloaded(list(dict.fromkeys(downloads_of(spec.factory)))),
        *([f"\n{document}"] if document else []),
        f"\nddpo train {use}{given}",
    ]
