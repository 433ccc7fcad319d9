"""
`run.json`: everything that made a run ([`RunSetup`]), and what it means for a checkpoint that another run left: what must be
the same, what takes effect, and which remembered rewards are still those of its rewards.
"""

from .beginning import SetupCallback
from .facts import PACKAGES, Launch, launched
from .record import RunSetup, name_of, write_setup

__all__ = ["PACKAGES", "Launch", "RunSetup", "SetupCallback", "launched", "name_of", "write_setup"]
