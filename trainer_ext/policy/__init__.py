"""The policy: record and replay of any diffusers text-to-image pipeline."""

from .conditioning import CallRecord, Conditioning
from .guidance import GUIDANCE_RULES, Guidance, GuidanceRule
from .noising import NoisingTable
from .pipeline import LogProbPipeline, Sampled
from .trajectory import Finals, Trajectory
from .transitions import RatioTerms, TransitionTable, kl_divergence, log_prob, ratio_terms

__all__ = [
    "GUIDANCE_RULES",
    "CallRecord",
    "Conditioning",
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
