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
