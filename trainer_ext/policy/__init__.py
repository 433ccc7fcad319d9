"""The policy: record and replay of any diffusers text-to-image pipeline."""

from .conditioning import CallRecord, Conditioning
from .guidance import Guidance
from .noising import NoisingTable
from .pipeline import LogProbPipeline, Sampled
from .rule_choice import GuidanceRule, asked_rule
from .trajectory import Finals, Trajectory
from .transitions import RatioTerms, TransitionTable, kl_divergence, log_prob, ratio_terms

__all__ = [
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
    "asked_rule",
    "kl_divergence",
    "log_prob",
    "ratio_terms",
]
