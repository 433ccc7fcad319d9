"""Options that are objects, as JSON."""

from __future__ import annotations

import json
from typing import Any

from ..errors import ConfigError

MAPPING_EXAMPLE = '{"height": 512}'


def parse_mapping(name: str, text: str, example: str = MAPPING_EXAMPLE) -> dict[str, Any]:
    """
    Read an option that is an object, as JSON.

    Raises:
        [`ConfigError`]: it is no JSON, or no object.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{name} is not JSON ({error}; its {len(text)} characters are not shown, because they may hold a key). Give an "
            f"object such as '{example}'."
        ) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is a JSON {type(value).__name__}; it must be an object such as '{example}'.")
    return value
