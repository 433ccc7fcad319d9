"""Names of secrets: of options, headers and variables, in any spelling."""

from __future__ import annotations

import functools
import re
from typing import Any

HIDDEN = "***"

SECRET_WORDS = """
key keys token tokens auth authn oauth jwt sas pat pwd pw pass pswd sig signature cred creds hmac dsn
session sessions sid csrf xsrf otp pin mnemonic
"""
PARTS = frozenset(SECRET_WORDS.split())
# What is found anywhere in a name, even if it is written as one word (`dbpassword`).
ANYWHERE = re.compile(
    "password|passwd|passwort|passphrase|passcode|userpass|secret|credential|cookie|authori[sz]ation|bearer|webhook|oauth|"
    "sessionid|seedphrase|connection(?:string|url)|connstr|serviceaccount|"
    "(?:api|access|private|priv|auth|account|signing|encryption|master|license|subscription|openai|hf|ssh|app|shared)key|token$"
)
COUNTED = frozenset(("keys", "tokens", "pass"))  # `max_new_tokens=64`: a number under such a name counts something
WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def is_secret_name(name: object, *, anywhere: bool = True) -> bool:
    """
    Return whether the value of this name is a secret.

    Args:
        name (`object`):
            Name of an option, a header or a variable: `api_key`, `apiKey`, `X-API-KEY`.
        anywhere (`bool`, *optional*, defaults to `True`):
            Look at every word of the name. Otherwise only at the last one: `KeyError: 'a'` in a message shows no key.
    """
    return _is_secret_text(str(name), anywhere)


@functools.lru_cache(maxsize=1 << 12)  # all variables of the environment are looked at for every text
def _is_secret_text(name: str, anywhere: bool) -> bool:
    words = _words(name) if anywhere else _words(name)[-1:]
    return bool(PARTS.intersection(words) or ANYWHERE.search("".join(words)))


def is_secret(name: object, value: Any) -> bool:
    """Return whether an option is a secret. A switch is none, and neither is a number that counts (`max_new_tokens=64`)."""
    if value is None or isinstance(value, bool) or not is_secret_name(name):
        return False
    if isinstance(value, int | float):
        return is_secret_name(name, anywhere=False) and _words(name)[-1] not in COUNTED
    return True


def _words(name: object) -> list[str]:
    return [word.lower() for word in WORD.findall(str(name))]
