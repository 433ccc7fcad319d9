"""Makes a rollout over all processes: sample, score, record, check stop rules, and weigh the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object

from ..config import DDPOConfig
from ..learning.algorithm import BoundAlgorithm
from ..learning.batches import pairs_at_once
from ..learning.order import num_kept
from ..learning.rollout import Rollout
from ..loop.lockstep import Lockstep
from ..loop.metrics import RunMetrics, mean_of
from ..loop.stopping import StopRules, rollout_rules
from ..model.weights import RunWeights
from ..options import clip_range_of
from ..policy.deviations import Replayed, comparable_steps
from ..policy.pipeline import LogProbPipeline
from ..policy.record import Sampled
from ..policy.recording.trajectory import Trajectory
from ..policy.self_check import check_compiled, check_gradients, check_replay, check_training_shape
from ..runs.folder import RunFolder
from ..runs.records import write_records
from ..scoring.judges import Judges
from ..types import FloatArray
from .fusing import FusedSampling
from .keeping import ImageKeeper
from .measure import detection_metrics, image_records, reward_metrics
from .sampling import Collected, RecordedSampling, sample_and_score
from .schedule import PromptSchedule, SamplingPlan
from .weighing import weigh_images
from .windows import NoiseWindow


@dataclass
class RolloutCollector:
    """
    Makes rollouts.

    Parameters:
        policy ([`LogProbPipeline`]):
            Samples the images.
        judges ([`Judges`]):
            Score the images.
        algorithm ([`BoundAlgorithm`]):
            Chooses what to retain of the denoising runs, and computes image weights from rewards.
        weights ([`RunWeights`]):
            The trained module without compilation, for a check of compiled code; and the weights to sample with.
        schedule ([`PromptSchedule`]):
            Chooses the prompts and seeds of each rollout.
        lockstep ([`Lockstep`]):
            Checked after every denoising step, and may stop there.
        args ([`DDPOConfig`]):
            The run's options.
    """

    policy: LogProbPipeline
    judges: Judges
    algorithm: BoundAlgorithm[Any, Any]
    weights: RunWeights
    schedule: PromptSchedule
    lockstep: Lockstep
    args: DDPOConfig

    def __post_init__(self) -> None:
        self._rules = StopRules(rollout_rules(self.args.stop_when or ()), self.judges.trained.detector_names)
        self._keeper = ImageKeeper.of(self.args)
        self._replay_checked = False
        self._window = NoiseWindow.of(self.args, self.policy, self.algorithm.trained_steps)
        self._fused = FusedSampling.of(self.args, self.policy, self.weights.denoiser, self.algorithm, self.lockstep)

    def collect(
        self,
        model: torch.nn.Module,
        index: int,
        trainer_state: Any,
        metrics: RunMetrics,
        on_failure: Callable[[], None],
    ) -> Rollout[Any]:
        """
        Make the rollout with number `index`, 0 for the first. Every process must call this.

        Args:
            model (`torch.nn.Module`):
                The denoiser as the accelerator prepared it.
            index (`int`):
                Number of the rollout.
            trainer_state (`TrainerState`):
                Handed to the rewards.
            metrics ([`RunMetrics`]):
                Collects the measurements.
            on_failure (`Callable[[], None]`):
                Called, by all processes, when the sampling, a reward or the recording of one of them failed, or no image got
                a reward.

        Raises:
            [`RewardError`]: a reward broke its contract, or no image got a reward.
            [`PipelineError`], [`GuidanceError`]: the pipeline does something that cannot be replayed.
            [`RuleMetError`]: a rule ends the run here. Nothing but the records remains of this rollout.
            `KeyboardInterrupt`: Ctrl-C was pressed.
        """
        plan = self.schedule.plan(index, self.args.process_index, self.args.world_size)
        try:
            with self.lockstep.guarded(), self.weights.sampling(), self._window.in_rollout(index):
                collected = self._sample_and_score(model, index, plan, trainer_state)
            records = gather_object(image_records({"rollout": index}, plan, collected.scores))
            with self.lockstep.guarded():
                self._record(index, records)
            measured = self._measure(records)
        except Exception:
            on_failure()
            raise
        self._check_rules(index, measured, collected)
        objectives = list(self.judges.trained.objectives)
        weights = weigh_images(self.algorithm, records, objectives, self.args.diversity_shaping)
        with self.lockstep.guarded():
            self._record(index, records, weights.values)
        metrics.note(measured | weights.metrics)
        metrics.note(collected.measured(len(records)))
        return Rollout(index, collected.data, *weights.of_process(self.args.process_index, len(plan.seeds)))

    def _sample_and_score(
        self, model: torch.nn.Module, index: int, plan: SamplingPlan, trainer_state: Any
    ) -> Collected:
        number, every = len(plan.seeds), self.args.detector_every
        with self._keeper.keeping(index, self.args.process_index * number, number) as keep:
            return sample_and_score(
                sample=self._sampling(model),
                num_steps=self.policy.table.num_steps,
                batches=plan.batches(self.args.rollout_batch_size),
                score=partial(self.judges.trained.score, trainer_state=trainer_state, detector_every=every),
                scorer=self.judges.scorer,
                keep=keep,
                on_first=partial(self._check_replay, model),
                on_step=self.lockstep.check,
                title=f"rollout {index}" if not self.args.disable_tqdm and self.args.process_index == 0 else None,
                folder=self.args.folder if self.args.rollout_on_disk else None,
            )

    def _sampling(self, model: torch.nn.Module) -> Callable[..., tuple[Sampled, Any]]:
        recorded = RecordedSampling(self.policy, model, self.algorithm.retain)
        return recorded.sample if self._fused is None else partial(self._fused.sample, recorded)

    def _record(self, index: int, records: Sequence[Mapping[str, Any]], weights: FloatArray | None = None) -> None:
        """Record images, first without the weights with which they are trained on: a rule may end the run before that."""
        if self.args.process_index == 0:
            advantages = [None] * len(records) if weights is None else weights.tolist()
            rows = [{**record, "advantage": value} for record, value in zip(records, advantages, strict=True)]
            write_records(RunFolder(self.args.folder).rollout_file(index), rows)

    def _check_replay(self, model: torch.nn.Module, trajectory: Trajectory) -> None:
        """Check once, before the first update, that replaying steps gives what was sampled, and a gradient."""
        if self._replay_checked:
            return
        clip_range = clip_range_of(self.algorithm.algorithm.name, self.args.clip_range)
        check_replay(self.policy, model, trajectory, clip_range)
        replayed = self._as_trained(trajectory)
        if self.algorithm.algorithm.clips_ratio:
            check_training_shape(self.policy, model, replayed, clip_range)
        if self.lockstep.accelerator.distributed_type != DistributedType.FSDP:  # where no process has the whole module
            check_gradients(self.policy, self.weights.denoiser, replayed)
        if self.args.torch_compile:
            check_compiled(self.policy, model, self.weights.denoiser, replayed)
        self._replay_checked = True

    def _as_trained(self, trajectory: Trajectory) -> Replayed:
        """Choose steps to replay in the shape of a forward pass of training, among those that can be compared with a record."""
        images, steps = self.args.per_device_train_batch_size, self.algorithm.trained_steps
        size = pairs_at_once(self.policy, self.args.rows_per_forward, images)
        largest = images * num_kept(steps, self.args.timestep_fraction)
        recorded = steps[torch.isin(steps, comparable_steps(trajectory))]
        return Replayed.as_trained(trajectory, recorded, min(size, largest))

    def _measure(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the metrics of the rollout, the same in every process."""
        judges = self.judges.trained
        return {**reward_metrics(records, judges.names), **detection_metrics(records, judges.detector_names)}

    def _check_rules(self, index: int, measured: Mapping[str, float], collected: Collected) -> None:
        """End the run if the metrics of the rollout meet a rule."""
        if self._rules.rules:
            logged = mean_of(gather_object([dict(collected.scores.metrics)]))
            self._rules.check(index, {**logged, **measured})
