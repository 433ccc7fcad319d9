"""`ddpo presets`: the presets, and what one of them sets."""

from __future__ import annotations

from typing import Any

import yaml

from ..parse import preset_files, read_preset_text
from ..screens.pages import CommandParser
from .details import downloaded, downloads_of


def run(arguments: list[str]) -> int:
    """Run the command."""
    parser = CommandParser(prog="ddpo presets", description="List the presets, or show what one of them sets.")
    parser.add_argument("name", nargs="?", help="Show this one, such as lora/aesthetic.")
    name = parser.parse_args(arguments).name
    print(_list() if name is None else _show(name))
    return 0


def _list() -> str:
    rows = [(name, *_about(read_preset_text(name))) for name in preset_files()]
    width = max(len(name) for name, *_ in rows)
    lines = [f"{name:<{width}}  {about}{f' Rewards: {rewards}.' if rewards else ''}" for name, rewards, about in rows]
    return "\n".join([*lines, "", "`ddpo presets NAME` shows what one sets; `ddpo train --preset NAME` uses it."])


def _about(text: str) -> tuple[str, str]:
    """Return a preset's rewards, and the comment that it begins with."""
    rewards = yaml.safe_load(text).get("reward_funcs", [])
    first = next((line for line in text.splitlines() if line.startswith("#")), "#")
    return ", ".join(rewards), first.removeprefix("#").strip()


def _show(name: str) -> str:
    text = read_preset_text(name)
    needed = _needed(yaml.safe_load(text))
    return "\n".join([text.rstrip(), "", *needed])


def _needed(options: dict[str, Any]) -> list[str]:
    """Return what a run with these options downloads."""
    from ddpo_plugins import load_catalogue

    catalogue = load_catalogue()
    rewards = [*options.get("reward_funcs", []), *options.get("eval_reward_funcs", [])]
    specs: list[tuple[Any, list[str]]] = [
        (catalogue.rewards, rewards),
        (catalogue.detectors, options.get("detectors", [])),
    ]
    found = [options["model_name_or_path"]] if "/" in options.get("model_name_or_path", "") else []
    for offers, names in specs:
        for name in (name for name in names if name in offers):
            found += downloads_of(offers[name].spec.factory)
    return [downloaded(list(dict.fromkeys(found)))]
