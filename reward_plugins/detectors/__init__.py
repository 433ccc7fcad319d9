"""Detectors that ship with this project."""

from . import blank, diversity, duplicates, text

DETECTORS = (*text.DETECTORS, *blank.DETECTORS, *diversity.DETECTORS, *duplicates.DETECTORS)
