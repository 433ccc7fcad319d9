"""Detectors that ship with this project."""

from . import blank, diversity, text

DETECTORS = (*text.DETECTORS, *blank.DETECTORS, *diversity.DETECTORS)
