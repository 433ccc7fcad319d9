"""Functions that are computed elsewhere, and know where they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class ServedElsewhere(ABC):
    """
    Base class of a reward or detector that only asks for its values, for example of a server in another environment.

    What it is asked to compute is recorded in `run.json`, beside the options of its factory. A run that is resumed compares this
    alone: the addresses of servers may change.
    """

    @property
    @abstractmethod
    def served(self) -> Mapping[str, Any]:
        """The function that computes the values: its name, plugin, version and options, as JSON holds them."""
