"""`ddpo rewards`: lists what plugins offer, where each offer comes from, and which plugins failed."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from typing import Any

from ddpo_plugins import load_catalogue
from ddpo_plugins.catalogue import Offer

from ..policy.guidance.rules import GUIDANCE_RULES

PACKAGE = "ddpo-plugins"


def run(arguments: list[str]) -> int:
    """Run the command. Exit status 1 if a plugin failed."""
    parser = argparse.ArgumentParser(
        prog="ddpo rewards",
        description="List the rewards, detectors, prompt sets and guidance rules that are installed, and the plugins that "
        "failed.",
    )
    parser.parse_args(arguments)
    catalogue = load_catalogue()
    kinds = (catalogue.rewards, catalogue.detectors, catalogue.prompt_sets, catalogue.guidance_rules)
    offers: list[Offer[Any]] = [offers[name] for offers in kinds for name in offers]
    offers += [Offer("guidance rule", spec, "builtin", PACKAGE, version(PACKAGE)) for spec in GUIDANCE_RULES.values()]
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
