"""Secrets in texts: by their shape, by the name beside them, or because they are known."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .names import HIDDEN, is_secret_name

SHAPES = re.compile(
    r"""(?<![\w-])(?:
        hf_[A-Za-z0-9]{10,}                                              # Hugging Face
        | sk-[A-Za-z0-9][\w-]{7,} | [spr]k_(?:live|test)_\w{8,}          # OpenAI and others, Stripe
        | gh[opsur]_[A-Za-z0-9]{16,} | github_pat_\w{16,} | glpat-[\w-]{10,}
        | (?:AKIA|ASIA)[A-Z0-9]{12,} | AIza[\w-]{20,} | ya29\.[\w-]{10,}  # AWS, Google
        | xox[a-z]-[\w-]{8,} | nvapi-[\w-]{10,} | pypi-Ag[\w-]{10,} | (?:gsk|r8|npm)_[A-Za-z0-9]{16,}
        | eyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?                           # JSON web tokens
    )(?!\w)
    | -----BEGIN[ A-Z]*PRIVATE[ ]KEY-----.*?(?:-----END[ A-Z]*PRIVATE[ ]KEY-----|\Z)""",
    re.VERBOSE | re.DOTALL,
)
SCHEME = re.compile(r"\b(Bearer|Basic|Digest|Negotiate)(\s+)(?!realm)[\w.~+/=-]{4,}", re.IGNORECASE)
HEADER = re.compile(r"""([\w-]*(?:authorization|cookie)\\*["']?\s*[:=]\s*\\*["']?)([^\n"'}\\]+)""", re.IGNORECASE)
USER_OF_URL = re.compile(r"(?<=://)[^/\s?#]*@")
USER_AND_PASSWORD = re.compile(r"(?<![\w/])[\w.+-]+:[^\s/@:'\"]+@(?=[\w.-]+)")
QUERY_OF_URL = re.compile(r"""(\b[a-z][a-z0-9+.-]*://[^\s?#"'<>]*[?#])[^\s"'<>)\]}]+""", re.IGNORECASE)
# `name=value`, `"name": "value"` (also within a JSON text), `['--name', 'value']`
ASSIGNED = re.compile(
    r"""(?P<name>[A-Za-z][\w.-]*)(?P<sign>\\*["'\]]?\s*(?:=>|[:=])\s*|["'],\s+(?=["']))"""
    r"""(?P<value>\\*"[^"\n]*"|\\*'[^'\n]*'|[^\s,;&)\]}"'\\]+)"""
)
FLAG = re.compile(r"(?P<name>(?<![\w-])--?[A-Za-z][\w-]*)(?P<sign>\s+)(?P<value>(?=\S*\d)[^\s-]\S{5,})")
# A sentence that repeats a key: `Incorrect API key provided: abc`, `invalid token 'a1b2c3'`
KEY_SAID = re.compile(
    r"""(?P<before>\b(?:(?:api|access|secret|private|auth)[ _-]?key|password|passphrase|credentials?)(?:\s+\w+)?"""
    r"""(?:\s*:\s*|\s+(?=["'`])))(?P<value>"[^"\n]*"|'[^'\n]*'|`[^`\n]*`|[^\s"'`]+)""",
    re.IGNORECASE,
)
TOKEN_SAID = re.compile(
    r"""(?P<before>\btoken(?:\s+\w+)?(?:\s*:\s*["'`]?|\s+["'`]))(?P<value>(?=[^\s"'`]*\d)[^\s"'`]{6,})""", re.IGNORECASE
)

PLACEHOLDERS = ("", "none", "null", "true", "false", "empty", HIDDEN)  # `api_key="EMPTY"` is how one gives none
SHORTEST_KNOWN = 4  #: characters; a shorter text stands in too many messages by chance
SHORTEST_OF_ENVIRONMENT = 8
FOLDERS = ("PWD", "OLDPWD")  #: variables of every shell: a path with the current folder is none of the secrets
_known: set[str] = set()


def masked_text(text: str) -> str:
    """Hide the secrets in a text: those that are known, and everything that looks like one."""
    for secret in sorted({*_known, *_of_environment()}, key=len, reverse=True):
        if len(secret) >= SHORTEST_KNOWN and secret.lower() not in PLACEHOLDERS:
            text = text.replace(secret, HIDDEN)
    text = USER_AND_PASSWORD.sub(f"{HIDDEN}@", USER_OF_URL.sub(f"{HIDDEN}@", text))
    text = QUERY_OF_URL.sub(rf"\1{HIDDEN}", text)
    text = HEADER.sub(rf"\1{HIDDEN}", SCHEME.sub(rf"\1\2{HIDDEN}", SHAPES.sub(HIDDEN, text)))
    return FLAG.sub(_masked_assignment, ASSIGNED.sub(_masked_assignment, text))


def masked_message(text: str) -> str:
    """Hide the secrets in a program's message, which may repeat a key in a sentence."""
    text = masked_text(text)
    for sentence in (KEY_SAID, TOKEN_SAID):
        text = sentence.sub(lambda match: match["before"] + _in_quotes(match["value"]), text)
    return text


def remember_secrets(value: Any) -> None:
    """Hide the texts under secret names within `value` in every later text."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _known.update(_texts(item) if is_secret_name(name) else ())
            remember_secrets(item)
    elif isinstance(value, list | tuple):
        for item in value:
            remember_secrets(item)


def without_secrets(error: BaseException) -> BaseException | None:
    """Return the error as the cause of another one; `None` if a traceback with it would show a secret."""
    try:
        message = str(error)
    except Exception:  # nothing can show it
        return error
    return error if masked_message(message) == message else None


def _of_environment() -> set[str]:
    named = (name for name in os.environ if is_secret_name(name, anywhere=False) and name not in FOLDERS)
    secret = (os.environ[name] for name in named)
    return {value for value in secret if len(value) >= SHORTEST_OF_ENVIRONMENT}


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple | set) else ()
    return [text for item in inner for text in _texts(item)]


def _masked_assignment(match: re.Match[str]) -> str:
    name, sign, value = match.group("name", "sign", "value")
    if not is_secret_name(name, anywhere=False) or value.strip("\\\"'").lower() in PLACEHOLDERS:
        return f"{name}{sign}{ASSIGNED.sub(_masked_assignment, value)}"  # as in `unknown: --api_key=abc`
    return f"{name}{sign}{_in_quotes(value)}"


def _in_quotes(value: str) -> str:
    """Return the sign for a hidden value, within the value's quotes."""
    opening = re.match(r"\\*[\"'`]?", value)
    closing = re.search(r"\\*[\"'`]?$", value[1:])
    return f"{opening[0] if opening else ''}{HIDDEN}{closing[0] if closing else ''}"
