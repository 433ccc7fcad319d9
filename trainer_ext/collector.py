"""One process's share of a rollout: sample, score, and keep what the algorithm needs."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch

from .algorithms import Algorithm
from .config import DDPOConfig
from .denoiser import TrainedDenoiser
from .lockstep import Lockstep
from .policy import LogProbPipeline, Sampled, Trajectory
from .progress import rollout_bar
from .replay_check import check_compiled, check_replay
from .rewards import RewardSuite, Scores
from .rollout import Assignment, image_generators


@dataclass(frozen=True)
class Collected:
    """
    Parameters:
        memory ([`Trajectory`] or [`Finals`]):
            What the algorithm keeps of the denoising runs.
        scores ([`Scores`]):
            Rewards of the images.
        seconds (`dict[str, float]`):
            Where the time went: `rollout` and `reward`.
    """

    memory: Any
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
        algorithm: Algorithm[Any, Any],
        denoiser: TrainedDenoiser,
        args: DDPOConfig,
        lockstep: Lockstep,
    ):
        self.policy = policy
        self.reward_suite = reward_suite
        self.algorithm = algorithm
        self.denoiser = denoiser
        self.args = args
        self.lockstep = lockstep
        self._replay_checked = False

    def collect(self, model: torch.nn.Module, index: int, assignment: Assignment, trainer_state: Any) -> Collected:
        """
        Make the rollout with number `index`.

        Raises:
            [`RewardError`]: a reward broke its contract.
            [`PipelineError`], [`GuidanceError`]: the pipeline does something that cannot be replayed.
            `KeyboardInterrupt`: Ctrl-C was pressed.
        """
        batches = assignment.batches(self.args.rollout_batch_size)
        kept, scores = [], []
        seconds: dict[str, float] = defaultdict(float)
        with rollout_bar(len(batches) * self.policy.table.num_steps, index, self._shows_progress) as bar:

            def on_step(step: int) -> None:
                bar.update()
                self.lockstep.check()

            for batch in batches:
                with timed(seconds, "rollout"):
                    sampled = self._sample(model, batch, on_step)
                    kept.append(self.algorithm.keep(sampled.trajectory.cpu()))
                if not self._replay_checked:
                    self._check_replay(model, sampled.trajectory)
                with timed(seconds, "reward"):
                    scores.append(self.reward_suite.score(sampled.images, batch.image_rows, trainer_state))
                bar.set_postfix({"reward": f"{scores[-1].mean:.4g}"})
        return Collected(type(kept[0]).concatenate(kept), Scores.concatenate(scores), dict(seconds))

    def _sample(self, model: torch.nn.Module, batch: Assignment, on_step: Any) -> Sampled:
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


@contextlib.contextmanager
def timed(seconds: MutableMapping[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the block takes."""
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
