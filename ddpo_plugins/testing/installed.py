"""Checks of a whole installed plugin, and of prompt sets."""

from __future__ import annotations

from typing import Any

from ddpo_plugins.catalogue import Catalogue
from ddpo_plugins.errors import ContractError
from ddpo_plugins.prompt_rows import check_rows
from ddpo_plugins.specs import PromptSetSpec

from .subject import BreachError, own_code


def check_rows_of(spec: PromptSetSpec) -> list[dict[str, Any]]:
    """
    Return the rows of a prompt set.

    Raises:
        [`ContractError`]: it breaks the contract.
    """
    try:
        with own_code("`rows` was called"):
            return check_rows(spec.rows())
    except BreachError as breach:
        raise ContractError(f"Prompt set {spec.name!r} fails the check 'rows': {breach}") from breach.__cause__


def check_loaded(plugin: str, catalogue: Catalogue) -> None:
    """
    Check that a plugin is installed, loads, and offers something.

    Raises:
        [`ContractError`]: it does not; the message says what to do.
    """
    failures = [failure for failure in catalogue.failures if plugin in (failure.plugin, failure.distribution)]
    if failures:
        raise ContractError(" ".join(map(str, failures)))
    kinds = (catalogue.rewards, catalogue.detectors, catalogue.prompt_sets, catalogue.guidance_rules)
    offers = [offers[name] for offers in kinds for name in offers]
    if not any(plugin in (offer.plugin, offer.distribution) for offer in offers):
        raise ContractError(
            f"No installed plugin {plugin!r} offers anything. Plugins are found by their entry point in the group "
            f"'ddpo_plugins': add it to pyproject.toml, and install the project again (`pip install -e .`). Installed: "
            f"{', '.join(sorted({offer.plugin for offer in offers})) or 'none'}."
        )
