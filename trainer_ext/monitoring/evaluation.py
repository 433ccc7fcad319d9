"""Evaluates held-out prompts with fixed seeds, also by rewards that are never trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from ..config import DDPOConfig
from ..loop.lockstep import Lockstep
from ..loop.sharding import check_shares
from ..model.weights import RunWeights
from ..policy.pipeline import LogProbPipeline
from ..policy.seeds import image_generators
from ..rollouts.datasets import check_prompts
from ..rollouts.schedule import SamplingPlan
from ..scoring.judges import Judges
from ..scoring.suite import RewardSuite, Scores


@dataclass(frozen=True)
class Evaluator:
    """
    Samples held-out prompts with fixed seeds, and scores them.

    Parameters:
        policy ([`LogProbPipeline`]):
            The policy to evaluate.
        judges ([`Judges`]):
            The rewards that are trained on, with detectors, and the held-out ones.
        weights ([`RunWeights`]):
            The weights to evaluate.
        lockstep ([`Lockstep`]):
            Keeps processes together when one of them fails.
        args ([`DDPOConfig`]):
            The run's options.
    """

    policy: LogProbPipeline
    judges: Judges
    weights: RunWeights
    lockstep: Lockstep
    args: DDPOConfig

    def evaluate(self, model: torch.nn.Module, dataset: Any, prefix: str, trainer_state: Any) -> dict[str, float]:
        """
        Sample and score one image for each row of `dataset`. The row's number is the seed. Every process must call this.

        Args:
            model (`torch.nn.Module`):
                The denoiser as the accelerator prepared it.
            dataset (`datasets.Dataset`):
                Rows with a `prompt`.
            prefix (`str`):
                Prefix of the names of metrics.
            trainer_state (`TrainerState`):
                Handed to the rewards.

        Raises:
            [`ConfigError`]: the dataset cannot be sampled.
            [`RewardError`]: a reward broke its contract.
        """
        rows = check_prompts(dataset, "eval_dataset")
        check_shares(self.lockstep.accelerator.distributed_type, len(rows), self.args.world_size)
        own = range(self.args.process_index, len(rows), self.args.world_size)
        size = self.args.rollout_batch_size
        parts = [own[first : first + size] for first in range(0, len(own), size)]
        # Read batch by batch: rows may hold images.
        batches = (SamplingPlan([rows[row] for row in part], list(part), 1) for part in parts)
        with self.weights.loan.in_use(), self.lockstep.guarded(), self.weights.evaluated():
            model.eval()
            records = self._score(model, batches, trainer_state)
        return evaluation_metrics(gather_object(records), prefix)

    def _score(
        self, model: torch.nn.Module, batches: Iterable[SamplingPlan], trainer_state: Any
    ) -> list[dict[str, float]]:
        """
        Return a record for each image: `reward` (the weighted sum of the trained rewards), `rewards/{name}` and
        `detectors/{name}`; NaN where there is no value.
        """
        with self.judges.scorer.overlapping() as scoring:
            for batch in batches:
                images = self.policy.sample(batch.prompts, image_generators(batch.seeds), denoiser=model).images
                scoring.put(partial(_scores, self.judges.suites, images, batch.image_rows, trainer_state))
        return [_record(scores, image) for scores in scoring.results for image in range(len(scores[0].total))]


def _scores(suites: Sequence[RewardSuite], *batch: Any) -> list[Scores]:
    return [suite.score(*batch) for suite in suites]


def _record(scores: Sequence[Scores], image: int) -> dict[str, float]:
    values = {name: float(column[image]) for part in scores for name, column in part.by_record_name.items()}
    return {"reward": float(scores[0].total[image]), **values}


def evaluation_metrics(records: Sequence[dict[str, float]], prefix: str) -> dict[str, float]:
    """
    Return `{prefix}_reward`, `{prefix}_reward_std` and `{prefix}_rewards/{name}/mean` over the images that have a reward, and
    `{prefix}_detectors/{name}/mean` and `/max`.
    """
    columns = {name: np.array([record[name] for record in records]) for name in records[0]}
    total = columns.pop("reward")
    metrics = {f"{prefix}_reward": _mean(total), f"{prefix}_reward_std": _std(total)}
    for name, values in columns.items():
        metrics[f"{prefix}_{name}/mean"] = _mean(values)
        if name.startswith("detectors/"):
            metrics[f"{prefix}_{name}/max"] = _max(values)
    return metrics


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _max(values: np.ndarray) -> float:
    return float(np.nanmax(values)) if not np.isnan(values).all() else float("nan")


def _std(values: np.ndarray) -> float:
    return float(np.nanstd(values)) if not np.isnan(values).all() else float("nan")
