"""A fingerprint of what a function does, so that a reward that was changed is not taken for the one that it was."""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from ddpo_plugins.masking import is_secret_name, name_of

LENGTH = 16  #: hexadecimal digits
CONSTANTS = (type(None), type(...), bool, int, float, complex, str, bytes)
REBINDS = ("STORE_GLOBAL", "STORE_DEREF")  # a variable outside of the function, such as a counter
BUILDS = ("__init__", "__post_init__", "__new__")


def code_fingerprint(function: Any) -> str:
    """
    Return a fingerprint of a function's code, and of the functions, classes and constants of its module that it uses.

    It changes with what these do, but not with comments, docstrings or their place in a file. Secrets, code of other modules,
    and variables that the function itself sets are left out.
    """
    digest = hashlib.sha256()
    for part in _parts(function, set()):
        digest.update(f"{part}\0".encode())
    return digest.hexdigest()[:LENGTH]


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    """Describe everything that a function or an object does."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, functools.partial):
        yield from _parts(value.func, seen)
        arguments = {str(index): argument for index, argument in enumerate(value.args)} | value.keywords
        yield from _used(arguments, "", seen)
    elif isinstance(value, MethodType):
        yield from _parts(value.__func__, seen)
        yield from _parts(value.__self__, seen)
    elif isinstance(value, FunctionType):
        yield from _function_parts(value, seen)
    elif inspect.isclass(value):
        yield from _class_parts(value, seen)
    elif inspect.isroutine(value):
        yield name_of(value)
    else:
        yield from _class_parts(type(value), seen)
        yield from _used(_settings(value), type(value).__module__, seen)


def _function_parts(function: FunctionType, seen: set[int]) -> Iterator[str]:
    codes = list(_nested(function.__code__))
    for code in codes:
        constants = [item for item in code.co_consts if not isinstance(item, CodeType)]
        start = 1 if constants and constants[0] == function.__doc__ else 0
        yield f"{code.co_code.hex()} {code.co_names} {_described(tuple(constants[start:]))}"
    rebound = {step.argval for code in codes for step in dis.get_instructions(code) if step.opname in REBINDS}
    names = {name for code in codes for name in code.co_names} & function.__globals__.keys()
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    used = {
        **{name: function.__globals__[name] for name in names},
        **{name: _content(cell) for name, cell in cells},
        **{f"default {index}": value for index, value in enumerate(function.__defaults__ or ())},
        **(function.__kwdefaults__ or {}),
    }
    kept = {name: value for name, value in used.items() if name not in rebound}
    yield from _used(kept, function.__module__, seen)


def _class_parts(kind: type, seen: set[int]) -> Iterator[str]:
    yield name_of(kind)
    for base in _own_bases(kind):
        functions = {name: _plain_function(value) for name, value in vars(base).items()}
        own = {n: f for n, f in functions.items() if not n.startswith("__") or isinstance(f, FunctionType)}
        yield from _used(own, kind.__module__, seen)


def _used(values: Mapping[str, Any], module: str, seen: set[int]) -> Iterator[str]:
    """Describe what a function of `module` uses, by name: constants, and functions, classes and objects of that module."""
    for name, value in sorted(values.items()):
        if is_secret_name(name) or isinstance(value, ModuleType):
            continue
        if _is_constant(value):
            yield f"{name}={_described(value)}"
        elif inspect.isroutine(value) or inspect.isclass(value):
            yield f"{name}: {name_of(value)}"
            yield from _parts(value, seen) if name_of(value).startswith(f"{module}.") else ()
        elif type(value).__module__ == module:
            yield from _parts(value, seen)


def _settings(value: Any) -> dict[str, Any]:
    """Return the attributes of an object that only its construction sets: the others may count or remember."""
    methods = [(name, f) for base in _own_bases(type(value)) for name, f in vars(base).items() if name not in BUILDS]
    codes = [code for _, f in methods if isinstance(f, FunctionType) for code in _nested(f.__code__)]
    changed = {step.argval for code in codes for step in dis.get_instructions(code) if step.opname == "STORE_ATTR"}
    try:
        attributes = vars(value)
    except TypeError:  # it has slots
        return {}
    return {name: item for name, item in attributes.items() if name not in changed}


def _own_bases(kind: type) -> list[type]:
    return [base for base in kind.__mro__ if base.__module__ == kind.__module__ and base is not object]


def _plain_function(value: Any) -> Any:
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    return value.fget if isinstance(value, property) else value


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was assigned yet
        return None


def _is_constant(value: Any) -> bool:
    return isinstance(value, CONSTANTS) or (isinstance(value, tuple | frozenset) and all(map(_is_constant, value)))


def _described(value: Any) -> str:
    """Return the same text for equal constants: the order of a set depends on the process."""
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_described, value)))}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_described, value))})"
    return repr(value)
