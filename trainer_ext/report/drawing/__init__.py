"""
The plots of pages. In go the figures of runs; out come plots of matplotlib as SVG whose text stays text.
"""
