"""A rollout of all processes: made, recorded, held against the rules that end a run, and weighed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from ..config import DDPOConfig
from ..learning.algorithms import Algorithm
from ..learning.rollout import Rollout
from ..loop.metrics import RunMetrics, mean_of
from ..loop.stopping import StopRule, StopRules
from ..runs.records import write_records
from ..scoring.suite import RewardSuite
from ..types import FloatArray
from .collector import Collected, Collector
from .measure import column, detection_metrics, image_records, reward_metrics
from .schedule import PromptSchedule, SamplingPlan


class RolloutMaker:
    """
    Args:
        collector ([`Collector`]):
            Makes this process's share.
        reward_suite ([`RewardSuite`]):
            What it scores with.
        algorithm ([`Algorithm`]):
            Weighs images by their rewards.
        schedule ([`PromptSchedule`]):
            Of prompts and seeds.
        args ([`DDPOConfig`]):
            Of the run.
    """

    def __init__(
        self,
        collector: Collector,
        reward_suite: RewardSuite,
        algorithm: Algorithm[Any, Any],
        schedule: PromptSchedule,
        args: DDPOConfig,
    ):
        self.collector = collector
        self.reward_suite = reward_suite
        self.algorithm = algorithm
        self.schedule = schedule
        self.args = args
        self.rules = StopRules([StopRule.parse(rule) for rule in args.stop_when or ()], reward_suite.detector_names)

    def make(
        self,
        model: torch.nn.Module,
        index: int,
        trainer_state: Any,
        metrics: RunMetrics,
        on_failure: Callable[[], None],
    ) -> Rollout[Any]:
        """
        Make the rollout with number `index`. Every process must call this.

        Args:
            model (`torch.nn.Module`):
                The denoiser as the accelerator prepared it.
            index (`int`):
                0 for the first.
            trainer_state (`TrainerState`):
                Handed to the rewards.
            metrics ([`RunMetrics`]):
                Gets what is measured.
            on_failure (`Callable[[], None]`):
                Called, by all processes, when the sampling or a reward of one of them failed.

        Raises:
            [`RewardError`], [`PipelineError`], `KeyboardInterrupt`: as [`Collector.collect`] does.
            [`RuleMetError`]: a rule ends the run here. Nothing is remembered of this rollout but its records.
        """
        plan = self.schedule.plan(index, self.args.process_index, self.args.world_size)
        try:
            with self.collector.lockstep.guarded():
                collected = self.collector.collect(model, index, plan, trainer_state)
        except Exception:
            on_failure()
            raise
        records = gather_object(image_records(index, plan, collected.scores))
        if self.args.process_index == 0:
            write_records(self.args.folder, index, records)
        found = reward_metrics(records, self.reward_suite.names)
        found |= detection_metrics(records, self.reward_suite.detector_names)
        if self.rules.rules:
            logged = mean_of(gather_object([dict(collected.scores.metrics)]))
            self.rules.check(index, {**logged, **found})
        weights = self._weigh(records, metrics)
        metrics.note(found)
        _note_own(metrics, collected, len(records))
        return Rollout(index, collected.data, torch.from_numpy(self._share(weights, plan)).float())

    def _weigh(self, records: Sequence[Mapping[str, Any]], metrics: RunMetrics) -> FloatArray:
        """Say what the images of all processes count, `(B,)`."""
        total = column(records, "reward")
        objectives = np.stack([column(records, name) for name in self.reward_suite.objectives], axis=1)
        objectives[np.isnan(total)] = np.nan  # what a detector says of an image without a reward teaches nothing
        weights = self.algorithm.weighting.update([record["prompt"] for record in records], objectives, total)
        metrics.note({"frac_reward_zero_std": weights.frac_reward_zero_std})
        return weights.values

    def _share(self, weights: FloatArray, plan: SamplingPlan) -> FloatArray:
        first = self.args.process_index * len(plan.seeds)
        return weights[first : first + len(plan.seeds)]


def _note_own(metrics: RunMetrics, collected: Collected, num_images: int) -> None:
    """Note what this process measured alone."""
    metrics.note(collected.scores.metrics)
    metrics.note({f"seconds/{name}": value for name, value in collected.seconds.items()})
    metrics.note({"images_per_second": num_images / collected.seconds["rollout"]})
