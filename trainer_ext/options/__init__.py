"""
The options of a run. Imports nothing heavy, so that `ddpo train --help` is instant.

Each option is described once, by its help: the command line, the manual's table and `help(DDPOOptions)` all show it.
"""

from .choices import CHOICES
from .ddpo import CLIP_RANGES, DDPOOptions, clip_range_of
from .descriptions import default_of, described, option, parameters
from .mappings import MAPPING_EXAMPLE, parse_mapping
from .transformers_options import FileOptions, InheritedOptions, TrainerDefaults

__all__ = [
    "CHOICES",
    "CLIP_RANGES",
    "MAPPING_EXAMPLE",
    "DDPOOptions",
    "FileOptions",
    "InheritedOptions",
    "TrainerDefaults",
    "clip_range_of",
    "default_of",
    "described",
    "option",
    "parameters",
    "parse_mapping",
]
