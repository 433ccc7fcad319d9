"""
Writes the table of lines of code of each algorithm in docs/algorithms.md, counted in the source.

    python docs/write_lines.py
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType

from trainer_ext.learning.algorithms import ALGORITHMS

PAGE = Path(__file__).with_name("algorithms.md")
ROOM = "trainer_ext.learning"
BEGIN, END = "<!-- lines of code -->\n", "<!-- end -->"

Code = type | Callable


def tree(code: Code) -> ast.AST:
    """The parsed source."""
    return ast.parse(textwrap.dedent(inspect.getsource(code)))


def num_lines(code: Code) -> int:
    """Lines with code: neither blank, nor comments, nor docstrings."""
    parsed = tree(code)
    for node in ast.walk(parsed):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return len(
        {line for node in ast.walk(parsed) if hasattr(node, "lineno") for line in (node.lineno, node.end_lineno)}
    )


def functions_of(code: Code) -> Iterator[FunctionType]:
    """The functions of the room that some code calls, and those that these call."""
    known = vars(inspect.getmodule(code))
    for node in ast.walk(tree(code)):
        found = known.get(node.id) if isinstance(node, ast.Name) else None
        if isinstance(found, FunctionType) and found.__module__.startswith(ROOM) and found is not code:
            yield found
            yield from functions_of(found)


def row(name: str) -> str:
    """An algorithm's row."""
    kind = ALGORITHMS[name].kind
    formulas = dict.fromkeys(functions_of(kind))
    shared = [base.__name__ for base in kind.__mro__[1:] if base.__module__.startswith(ROOM)]
    count = sum(map(num_lines, formulas))
    named = ", ".join(f"`{function.__name__}`" for function in formulas)
    bases = ", ".join(f"`{base}`" for base in shared)
    return f"| `{name}` | {num_lines(kind)} | {count}: {named} | {bases} |"


def table() -> str:
    """A row for each algorithm."""
    head = "| algorithm | its class | functions of its formulas | what it shares |\n|-|-|-|-|"
    return "\n".join([head, *map(row, ALGORITHMS)])


def rewritten(page: str) -> str:
    """The page with the table counted again."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{PAGE} has no place for the table: write {BEGIN.strip()}, then {END}.")
    return f"{before}{BEGIN}\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
