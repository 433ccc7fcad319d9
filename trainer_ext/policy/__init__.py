"""The policy: record and replay of any diffusers text-to-image pipeline."""

from .guidance import GUIDANCE_RULES, Guidance, GuidanceRule
from .pipeline import LogProbPipeline, Sampled
from .trajectory import Trajectory
from .transitions import RatioTerms, TransitionTable, log_prob, ratio_terms

__all__ = [
    "GUIDANCE_RULES",
    "Guidance",
    "GuidanceRule",
    "LogProbPipeline",
    "RatioTerms",
    "Sampled",
    "Trajectory",
    "TransitionTable",
    "log_prob",
    "ratio_terms",
]
