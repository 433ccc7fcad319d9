"""
What of options, command lines and messages may be written or printed: everything but secrets.

A secret is recognised by its name (`apiKey`, `X-API-KEY`), by its shape (`hf_...`, `Bearer ...`, the query of a URL), or
because it was given under such a name before, as an option or in the environment. In doubt, a value is hidden.
"""

from .names import HIDDEN, is_secret_name
from .texts import masked_message, masked_text, remember_secrets, without_secrets
from .values import masked, masked_command, name_of

__all__ = [
    "HIDDEN",
    "is_secret_name",
    "masked",
    "masked_command",
    "masked_message",
    "masked_text",
    "name_of",
    "remember_secrets",
    "without_secrets",
]
