"""`ddpo rewards`: lists what plugins offer, where each offer comes from, and which plugins failed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from ddpo_plugins import load_catalogue
from ddpo_plugins.catalogue import Offer

from ..errors import ConfigError
from ..policy.guidance.rules import GUIDANCE_RULES
from .listing.details import describe
from .screens.pages import CommandParser

PACKAGE = "ddpo-plugins"


def run(arguments: list[str]) -> int:
    """Run the command. Exit status 1 if a plugin failed."""
    parser = CommandParser(
        prog="ddpo rewards",
        description="List the rewards, detectors, prompt sets and guidance rules that are installed, and the plugins that "
        "failed; or say what is known of one of them.",
    )
    parser.add_argument("name", nargs="?", help="Describe this one: its options, and what it downloads.")
    name = parser.parse_args(arguments).name
    catalogue = load_catalogue()
    kinds = (catalogue.rewards, catalogue.detectors, catalogue.prompt_sets, catalogue.guidance_rules)
    offers: list[Offer[Any]] = [offers[name] for offers in kinds for name in offers]
    offers += [Offer("guidance rule", spec, "builtin", PACKAGE, version(PACKAGE)) for spec in GUIDANCE_RULES.values()]
    if name is not None:
        return _describe(name, offers)
    rows = [("NAME", "KIND", "FROM", "DESCRIPTION")] + [
        (offer.spec.name, offer.kind, f"{offer.distribution} {offer.version}", " ".join(offer.spec.description.split()))
        for offer in offers
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))
    for failure in catalogue.failures:
        print(f"\n{failure}")
    return 1 if catalogue.failures else 0


def _describe(name: str, offers: Sequence[Offer[Any]]) -> int:
    found = [offer for offer in offers if offer.spec.name == name]
    if not found:
        near = difflib.get_close_matches(name, [offer.spec.name for offer in offers], n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"Nothing that is installed is called {name!r}.{hint} `ddpo rewards` lists everything.")
    print("\n\n".join(describe(offer) for offer in found))
    return 0
