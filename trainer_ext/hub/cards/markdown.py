"""Markdown from templates. Every value is escaped where it is inserted, so that no prompt or name can become markup."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

#: What may become markup, as references to characters: they mean themselves in Markdown, in HTML and in formulas.
REFERENCES = str.maketrans({char: f"&#{ord(char)};" for char in "&<>\"'\\`*_[]|~$!@:#"})
JOINERS = "\u200c\u200d"  # inside words of some languages, and between the parts of an emoji
PLAIN_CODE = re.compile(r"[\w .,:=/+()'\"-]+")


class Markdown(str):
    """Text that is Markdown already."""


def one_line(text: object) -> str:
    """Return a text on one line, without characters that cannot be seen, such as those that reverse what follows."""
    shown = (char if char.isprintable() or char in JOINERS else " " for char in str(text))
    return " ".join("".join(shown).split())


def escaped(value: object) -> Markdown:
    """Return a value as Markdown that shows it as it is, on one line."""
    if isinstance(value, Markdown):
        return value
    return Markdown(re.sub(r"(?i)www\.", lambda match: match[0][:-1] + "&#46;", one_line(value).translate(REFERENCES)))


def code(value: object) -> Markdown:
    """Return a value as code, on one line, also in a table."""
    text = one_line(value)
    return Markdown(f"`{text}`" if PLAIN_CODE.fullmatch(text) else f"<code>{escaped(text)}</code>")


def fenced(value: object, language: str = "") -> Markdown:
    """Return a block of code, in which no comment of HTML begins: such comments mark our part of a card."""
    text = str(value).replace("<!--", "<!- -")
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text) or [""]))
    return Markdown(f"{fence}{language}\n{text}\n{fence}")


def python(value: object) -> Markdown:
    """Return a value as a literal of Python, with double quotes where that needs no others, and no markup."""
    literal = repr(value).replace("<", r"\x3c")
    plain = isinstance(value, str) and literal.startswith("'") and not {'"', "\\"} & set(literal)
    return Markdown(f'"{literal[1:-1]}"' if plain else literal)


def number(value: float | None) -> str:
    """Return a measured number with four digits; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.4g}"


def render(template: str, context: Mapping[str, Any]) -> str:
    """
    Return a template of this room, filled in.

    Args:
        template (`str`):
            Name of the file.
        context (`Mapping[str, Any]`):
            The values. All but [`Markdown`] are escaped.
    """
    return _environment().get_template(template).render(context).strip() + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trainer_ext.hub.cards"),
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code, "fenced": fenced, "number": number, "safe_code": Markdown, "python": python}
    return environment
