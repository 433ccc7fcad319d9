"""How an option is described: by the help of its field, from which its docstring is made."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar

Options = TypeVar("Options")


def option(default: Any, text: str) -> Any:
    """Return a dataclass field with this default and help."""
    return field(default=default, metadata={"help": text})


def default_of(item: Field[Any]) -> Any:
    """Return the default of a dataclass's field."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def described(cls: type[Options]) -> type[Options]:
    """Add a dataclass's options, with their help, to its docstring."""
    cls.__doc__ = f"{inspect.getdoc(cls)}\n\nParameters:\n{parameters(cls)}"
    return cls


def parameters(*kinds: type) -> str:
    """Return the options of dataclasses as a docstring has them: type, default and help."""
    items = {item.name: item for kind in kinds for item in fields(kind) if "help" in item.metadata}
    return "".join(
        f"    {item.name} (`{item.type}`, *optional*, defaults to `{default_of(item)!r}`):\n"
        f"{textwrap.indent(textwrap.fill(item.metadata['help'], 110), ' ' * 8)}\n"
        for item in items.values()
    )
