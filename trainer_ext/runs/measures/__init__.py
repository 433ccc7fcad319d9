"""
What a run's records measure, without torch. Records of evaluations go in; [`PairedFigure`]s and an evaluation's figures come out.
"""

from .figures import evaluation_figures
from .paired import PairedFigure, paired_figure

__all__ = ["PairedFigure", "evaluation_figures", "paired_figure"]
