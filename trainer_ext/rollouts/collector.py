"""One process's share of a rollout: sample, score, and keep what the algorithm needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..config import DDPOConfig
from ..learning.algorithms import Algorithm
from ..loop.lockstep import Lockstep
from ..loop.metrics import timed
from ..loop.progress import RolloutBar
from ..model.denoiser import TrainedDenoiser
from ..policy.pipeline import LogProbPipeline, Sampled
from ..policy.recording.trajectory import Trajectory
from ..policy.seeds import image_generators
from ..policy.self_check import check_compiled, check_replay
from ..scoring.background import BackgroundScorer
from ..scoring.suite import RewardSuite, Scores
from .schedule import SamplingPlan


@dataclass(frozen=True)
class Collected:
    """
    Parameters:
        data ([`Trajectory`] or [`FinalLatents`]):
            What the algorithm keeps of the denoising runs.
        scores ([`Scores`]):
            Rewards of the images.
        seconds (`dict[str, float]`):
            Where the time went: `rollout`, without rewards; `reward`, and of that `reward_wait`, when nothing was sampled.
    """

    data: Any
    scores: Scores
    seconds: dict[str, float]


class Collector:
    """
    Makes rollouts.

    Args:
        policy ([`LogProbPipeline`]):
            What samples.
        reward_suite ([`RewardSuite`]):
            What scores.
        scorer ([`BackgroundScorer`]):
            Where it scores: a batch is scored while the next is sampled.
        algorithm ([`Algorithm`]):
            Says what to keep.
        denoiser ([`TrainedDenoiser`]):
            What is trained, to compare with when it is compiled.
        args ([`DDPOConfig`]):
            Of the run.
        lockstep ([`Lockstep`]):
            Asked after every denoising step whether to stop.
    """

    def __init__(
        self,
        policy: LogProbPipeline,
        reward_suite: RewardSuite,
        scorer: BackgroundScorer,
        algorithm: Algorithm[Any, Any],
        denoiser: TrainedDenoiser,
        args: DDPOConfig,
        lockstep: Lockstep,
    ):
        self.policy = policy
        self.reward_suite = reward_suite
        self.scorer = scorer
        self.algorithm = algorithm
        self.denoiser = denoiser
        self.args = args
        self.lockstep = lockstep
        self._replay_checked = False

    def collect(self, model: torch.nn.Module, index: int, plan: SamplingPlan, trainer_state: Any) -> Collected:
        """
        Make the rollout with number `index`.

        Raises:
            [`RewardError`]: a reward broke its contract.
            [`PipelineError`], [`GuidanceError`]: the pipeline does something that cannot be replayed.
            `KeyboardInterrupt`: Ctrl-C was pressed.
        """
        batches = plan.batches(self.args.rollout_batch_size)
        kept = []
        seconds: dict[str, float] = {}
        with (
            RolloutBar(len(batches) * self.policy.table.num_steps, index, self._shows_progress) as bar,
            self.scorer.overlapping(bar.on_wait) as scoring,
        ):

            def on_step(step: int) -> None:
                bar.on_step()
                self.lockstep.check()

            for batch in batches:
                with timed(seconds, "rollout"):
                    sampled = self._sample(model, batch, on_step)
                    kept.append(self.algorithm.retain(sampled.trajectory.cpu()))
                if not self._replay_checked:
                    self._check_replay(model, sampled.trajectory)
                scoring.put(partial(self.reward_suite.score, sampled.images, batch.image_rows, trainer_state))
                if scoring.results:
                    bar.on_reward(scoring.results[-1].mean)
        return Collected(
            type(kept[0]).concatenate(kept), Scores.concatenate(scoring.results), {**seconds, **scoring.seconds}
        )

    def _sample(self, model: torch.nn.Module, batch: SamplingPlan, on_step: Any) -> Sampled:
        return self.policy.sample(
            [row["prompt"] for row in batch.rows],
            image_generators(batch.seeds),
            num_images_per_prompt=batch.num_images_per_prompt,
            denoiser=model,
            on_step=on_step,
        )

    @property
    def _shows_progress(self) -> bool:
        return not self.args.disable_tqdm and self.args.process_index == 0

    def _check_replay(self, model: torch.nn.Module, trajectory: Trajectory) -> None:
        check_replay(self.policy, model, trajectory, self.args.clip_range)
        if self.args.torch_compile:
            check_compiled(self.policy, model, self.denoiser, trajectory)
        self._replay_checked = True
