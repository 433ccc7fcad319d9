"""Checks of the fields of specs, made when a plugin creates one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from .errors import InvalidSpecError

IMAGE_FORMATS = ("pil", "pt")


def check_name(spec: str, name: str) -> None:
    """Refuse a name that is not spelt as names are."""
    if not isinstance(name, str) or re.fullmatch("[a-z][a-z0-9_]*", name) is None:
        raise InvalidSpecError(
            f"{spec}: name must be lower-case letters, digits and underscores, starting with a letter, "
            f"for example 'jpeg_compressibility'; got {name!r}. Rename it."
        )


def check_callable(spec: str, name: str, field: str, value: object, example: str) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise InvalidSpecError(
            f"{spec} {name!r}: {field} must be callable; got {value!r} of type {type(value).__name__}. "
            f"Pass a function, for example {field}={example}."
        )


def check_images(spec: str, name: str, images: str) -> None:
    """Refuse a form of images that does not exist."""
    if images not in IMAGE_FORMATS:
        raise InvalidSpecError(
            f"{spec} {name!r}: images must be 'pil' (list of RGB PIL images) or 'pt' (float32 tensor (B, 3, H, W) in "
            f"[0, 1]); got {images!r}. Leave it out for 'pil'."
        )


def check_description(spec: str, name: str, description: object) -> None:
    """Refuse a description that is no text."""
    if not isinstance(description, str):
        raise InvalidSpecError(
            f"{spec} {name!r}: description must be a text of one line; got {description!r} of type "
            f"{type(description).__name__}."
        )


def check_factory(spec: str, name: str, kind: str, factory: Callable[..., Any]) -> None:
    """Refuse a factory that cannot be called as `factory(device=...)`, and a reward or detector where its factory belongs."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some built-ins have no signature
        return
    by_name = {key for key, parameter in parameters.items() if parameter.kind is not parameter.POSITIONAL_ONLY}
    if "device" in by_name:
        return
    takes = f"it takes ({', '.join(map(str, parameters.values()))})"
    if {"images", "prompts"} & by_name:
        raise InvalidSpecError(
            f"{spec} {name!r}: factory is the {kind} itself, as {takes}. Give the function that builds it: "
            f"factory=lambda device: my_{kind}."
        )
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        raise InvalidSpecError(
            f"{spec} {name!r}: factory is called with device=..., and {takes}. Define it with that argument: "
            f"`def build_{name}(device): ...`."
        )
