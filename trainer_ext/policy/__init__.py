"""The policy: record and replay of any diffusers text-to-image pipeline."""

from .guidance import GUIDANCE_RULES, Guidance, GuidanceRule
from .noising import NoisingTable
from .pipeline import LogProbPipeline, Sampled
from .trajectory import CallRecord, Finals, Trajectory
from .transitions import RatioTerms, TransitionTable, kl_divergence, log_prob, ratio_terms

__all__ = [
    "GUIDANCE_RULES",
    "CallRecord",
    "Finals",
    "Guidance",
    "GuidanceRule",
    "LogProbPipeline",
    "NoisingTable",
    "RatioTerms",
    "Sampled",
    "Trajectory",
    "TransitionTable",
    "kl_divergence",
    "log_prob",
    "ratio_terms",
]
