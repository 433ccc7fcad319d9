"""`ddpo rewards`: what is installed, from where, and what failed."""

from __future__ import annotations

import argparse

from ddpo_plugins import load_catalogue


def run(arguments: list[str]) -> int:
    """Run the command. Exit status 1 if a plugin failed."""
    parser = argparse.ArgumentParser(
        prog="ddpo rewards",
        description="List the rewards, detectors and prompt sets that are installed, and the plugins that failed.",
    )
    parser.parse_args(arguments)
    catalogue = load_catalogue()
    offers = [
        offers[name] for offers in (catalogue.rewards, catalogue.detectors, catalogue.prompt_sets) for name in offers
    ]
    rows = [("NAME", "KIND", "FROM", "DESCRIPTION")] + [
        (offer.spec.name, offer.kind, f"{offer.distribution} {offer.version}", offer.spec.description)
        for offer in offers
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))
    for failure in catalogue.failures:
        print(f"\n{failure}")
    return 1 if catalogue.failures else 0
