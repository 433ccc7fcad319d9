"""
Errors a user may see. Each says what was wrong, what was given, what is allowed and what to do.

```
DDPOError
├── PluginError                  something is wrong with a plugin, not with this package
│   ├── InvalidSpecError         a spec, or what a hook returned, is not what the hook asks for
│   ├── DuplicateNameError       two plugins claim one name
│   └── UnknownNameError         no loaded plugin offers that name (also a KeyError)
├── RewardError                  a reward was called and broke its contract
└── ContractError                `ddpo_plugins.testing` found a breach (also an AssertionError)
```
"""

from .masking import masked_message


class DDPOError(Exception):
    """
    Base class of every error of this project. Secrets in its message are hidden: it is printed, logged and sent on.

    Args:
        arguments:
            The message.
    """

    def __init__(self, *arguments: object):
        super().__init__(*(masked_message(value) if isinstance(value, str) else value for value in arguments))


class PluginError(DDPOError):
    """Something is wrong with a plugin, not with this package."""


class InvalidSpecError(PluginError):
    """A spec, or what a hook returned, is not what the hook asks for."""


class DuplicateNameError(PluginError):
    """Two plugins claim one name, so that neither can be meant by it."""


class UnknownNameError(PluginError, KeyError):
    """No loaded plugin offers the requested name."""

    __str__ = Exception.__str__  # a KeyError puts its message in quotes


class RewardError(DDPOError):
    """A reward was called and broke its contract: wrong length, wrong type, NaN, Inf, a raised error, a time-out."""


class ContractError(DDPOError, AssertionError):
    """A check of `ddpo_plugins.testing` failed; the message names the check, its input and the result."""


def describe(error: BaseException) -> str:
    """Return type and message of an error of a plugin, without a full stop."""
    message = message_of(error).rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def message_of(error: BaseException) -> str:
    """Return the message of an error of a plugin without secrets, also of one whose `str` raises an error itself."""
    try:
        return masked_message(str(error))
    except Exception as failure:
        return f"(a message that cannot be shown, because it raises {type(failure).__name__})"


def cure_of(error: BaseException) -> str:
    """Return what helps against an error of a plugin, as one sentence; empty if nothing particular is known."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return (
            f"It needs the module {package!r}: `pip install {package}`, or the package that has the module under another name; "
            "the plugin's author should add it to the plugin's dependencies."
        )
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"Correct line {error.lineno} of {error.filename}."
    return ""
