"""
Writes the tables of docs/reproductions.md: the rules from the source, the results from the JSON files in docs/reproductions/.

    python docs/write_reproductions.py
"""

import json
from pathlib import Path

from trainer_ext.reproduction.rules import RULES

PAGE = Path(__file__).with_name("reproductions.md")
RESULTS = Path(__file__).with_name("reproductions")
TITLES = (
    "",
    "task",
    "model",
    "on",
    "budget",
    "hours (expected)",
    "peak memory (expected)",
    "same prompts and seeds",
    "unseen prompts",
    "other options",
)
HEADER = f"|{' | '.join(TITLES)} |"
NONE = "None yet."


def rules() -> str:
    """One row for each rule."""
    rows = (f"| {name} | {rule.asks} | {rule.passes} | {rule.fails} |" for name, rule in RULES.items())
    return "\n".join(["| rule | | passes if | fails if |", "|-|-|-|-|", *rows])


def results(documents: dict[str, dict], embedded: bool) -> str:
    """One row for each result, of the embedded model or of all others."""
    rows = [row(name, found) for name, found in documents.items() if found["embedded"] == embedded]
    return "\n".join([HEADER, "|" + "-|" * len(TITLES), *rows]) if rows else NONE


def row(name: str, found: dict) -> str:
    """Return the row of a result, which links its file."""
    measured, expected, evidence = found["measured"], found["estimate"], found["evidence"]
    cells = (
        f"[{found['outcome']}](reproductions/{name})",
        found["task"],
        f"`{found['model']}`",
        f"{found['device']}, {evidence['precision']}",
        found["budget"],
        f"{measured['hours']:.2g} ({expected['hours']:.2g})",
        f"{measured['peak_bytes'] / 1e9:.2g} GB ({expected['training_bytes'] / 1e9:.2g} GB)",
        change(evidence["fixed"]),
        change(evidence["unseen"]),
        f"`{' '.join(found['changed'])}`" if found["changed"] else "",
    )
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def change(found: dict | None) -> str:
    """A reward before and after, with the interval of the difference."""
    if found is None:
        return "not measured"
    interval = "" if found["low"] is None else f", {found['low']:+.3g} to {found['high']:+.3g}"
    return f"{found['before']:.4g} -> {found['after']:.4g} (n = {found['n']}{interval})"


def documents() -> dict[str, dict]:
    """Return the results by the names of their files."""
    return {file.name: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))}


def rewritten(page: str) -> str:
    """Return the page with every table between its two comments made again."""
    found = documents()
    parts = {"rules": rules(), "results": results(found, False), "embedded results": results(found, True)}
    for name, rows in parts.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, marked, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (marked and closed):
            raise SystemExit(f"{PAGE} has no place for {name}: write {begin.strip()}, then {end}.")
        page = f"{before}{begin}\n{rows}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
