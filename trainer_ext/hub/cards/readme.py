"""A README.md of a repository on the Hub, of which one part is ours and the rest belongs to whoever edits it there."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub import CardData, EvalResult, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

logger = logging.getLogger(__name__)

FrontMatter = Mapping[str, Any]  #: the metadata at the top of a README.md

BEGIN = "<!-- ddpo-plugins: begin. Each push writes this part again; what you write above or below it stays. -->"
END = "<!-- ddpo-plugins: end -->"
MARKER = r"<!-- ddpo-plugins: (?:begin|end).*?-->"
BLOCK = re.compile(
    r"<!-- ddpo-plugins: begin(?:(?!<!-- ddpo-plugins: begin).)*?<!-- ddpo-plugins: end.*?-->", re.DOTALL
)

LICENCE = ("license", "license_name", "license_link")
OF_A_PERSON = ("language", "pretty_name")  # once set, these stay as they are
LISTS = ("tags", "datasets")  # both ours and those that were added


def merged_readme(front_matter: FrontMatter, block: str, existing: str | None) -> str:
    """
    Return a README.md with our front matter and our part, and with everything that a person wrote into the existing one.

    Args:
        front_matter (`Mapping[str, Any]`):
            Our metadata. Keys that are not in it stay as they are. The licence and the language of the existing one stay, and so
            do additional tags, data sets, configurations of data sets and evaluation results.
        block (`str`):
            Our part, in Markdown. It replaces the earlier one, or goes below all text if there was none.
        existing (`str`, *optional*):
            The README.md that is on the Hub.
    """
    theirs, text = _parsed(existing or "")
    data = CardData(**_merged(front_matter, theirs))
    return f"---\n{data.to_yaml()}\n---\n{_with_block(text, block)}"


def front_matter_of(readme: str) -> dict[str, Any]:
    """Return the metadata of a README.md; none if there is none that can be read."""
    return _parsed(readme)[0]


def licence_of(readme: str) -> dict[str, str]:
    """Return the licence in a README.md: `license`, and for `other` also `license_name` and `license_link`."""
    found = front_matter_of(readme)
    return {name: found[name] for name in LICENCE if found.get(name)}


def _parsed(readme: str) -> tuple[dict[str, Any], str]:
    """Return the metadata and the text of a README.md."""
    readme = readme.removeprefix("\ufeff")
    match = REGEX_YAML_BLOCK.search(readme)
    if match is None:
        return {}, readme
    text = readme[match.end() :]
    try:
        data = yaml.safe_load(match[2]) or {}
    except yaml.YAMLError as error:
        logger.warning("The metadata of a README.md on the Hub are no YAML, and are left out (%s).", error)
        return {}, text
    if not isinstance(data, dict):
        logger.warning("The metadata of a README.md on the Hub are no mapping, and are left out (%r).", data)
        return {}, text
    return data, text


def _merged(ours: FrontMatter, theirs: FrontMatter) -> dict[str, Any]:
    data = {**ours, **{name: value for name, value in theirs.items() if name not in ours}}
    if theirs.get("license"):
        data |= {name: theirs.get(name) for name in LICENCE}
    data |= {name: theirs[name] for name in OF_A_PERSON if theirs.get(name)}
    data |= {name: _union(ours[name], theirs.get(name)) for name in LISTS if name in ours}
    if "configs" in ours:
        data["configs"] = _more(ours["configs"], theirs.get("configs"), "config_name")
    if "model-index" in ours:
        data["model-index"] = _more_results(ours["model-index"], theirs.get("model-index"))
    return {name: value for name, value in data.items() if value is not None}


def _union(ours: list[str], theirs: Any) -> list[str]:
    given = theirs if isinstance(theirs, list) else [theirs] if theirs else []
    return [*ours, *(value for value in given if value not in ours)]


def _more(ours: list[dict[str, Any]], theirs: Any, key: str) -> list[dict[str, Any]]:
    """Return our entries, and those of theirs whose `key` is another."""
    names = [entry[key] for entry in ours]
    given = theirs if isinstance(theirs, list) else []
    return [*ours, *(entry for entry in given if isinstance(entry, dict) and entry.get(key) not in names)]


def _more_results(ours: list[dict[str, Any]], theirs: Any) -> list[dict[str, Any]]:
    """Return our model index, with the evaluation results of others on other data."""
    own, read = _evaluations(ours), _evaluations(theirs)
    names = {result.dataset_name for result in own}
    results = [*own, *(result for result in read if result.dataset_name not in names)]
    return list(ModelCardData(model_name=ours[0]["name"], eval_results=results).to_dict()["model-index"])


def _evaluations(index: Any) -> list[EvalResult]:
    """Return the evaluation results in a model index; none if it cannot be read."""
    data: dict[str, Any] = {"model-index": index}
    return list(ModelCardData(ignore_metadata_errors=True, **data).eval_results or ())


def _with_block(text: str, block: str) -> str:
    above, *below = (re.sub(MARKER, "", part) for part in BLOCK.split(text))
    parts = (above, f"{BEGIN}\n\n{block.strip()}\n\n{END}", "".join(below))
    return "\n\n".join(part for part in (part.strip("\r\n") for part in parts) if part) + "\n"
