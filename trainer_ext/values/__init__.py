"""
The values of options, whoever gives them: a dataclass of options goes in; its values are converted where only one thing can be
meant, and compared with their limits, or an error says which form they must have.
"""

from .checks import CheckedOptions, check_values

__all__ = ["CheckedOptions", "check_values"]
