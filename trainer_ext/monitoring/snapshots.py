"""What a run draws while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..config import DDPOConfig
from ..loop.rewind import preserved_rng
from ..policy.pipeline import LogProbPipeline
from ..policy.stock import stock_images
from ..runs.curve import draw_reward_curve
from ..runs.samples import SampleSet, draw_sheet, evenly_spaced, load_images
from ..scoring.background import BackgroundScorer
from ..scoring.suite import RewardSuite


class SampleCallback(TrainerCallback):
    """
    Draws fixed prompts with fixed seeds before, during and after training, and the reward curve.

    Args:
        policy ([`LogProbPipeline`]):
            What is trained.
        reward_suite ([`RewardSuite`]):
            Scores the pictures.
        scorer ([`BackgroundScorer`]):
            Where it does.
        rows (`Sequence[Mapping]`):
            Dataset rows to take prompts from.
        args ([`DDPOConfig`]):
            How many pictures, how often.
        weights (`Callable[[], AbstractContextManager]`):
            Puts the weights to draw with in place for a while.
    """

    def __init__(
        self,
        policy: LogProbPipeline,
        reward_suite: RewardSuite,
        scorer: BackgroundScorer,
        rows: Sequence[Mapping[str, Any]],
        args: DDPOConfig,
        weights: Callable[[], AbstractContextManager[None]],
    ):
        self.policy = policy
        self.weights = weights
        self.reward_suite = reward_suite
        self.scorer = scorer
        by_prompt = {row["prompt"]: row for row in rows}
        self.rows = [by_prompt[prompt] for prompt in evenly_spaced(list(by_prompt), args.num_sample_images)]
        self.folder = args.folder / "samples"
        self.batch_size = args.rollout_batch_size
        self.every = args.sample_every * args.updates_per_rollout
        self.updates_per_rollout = args.updates_per_rollout

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the model as it was, once for a run."""
        if state.is_world_process_zero and not self._folder_of(0).exists():
            self._draw(0, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Draw the model as it is, every few rollouts; before the step's checkpoint, so that no picture is ever missing."""
        if state.is_world_process_zero and self.every and state.global_step % self.every == 0:
            self._draw(state.global_step // self.updates_per_rollout, state)
            draw_reward_curve(self.folder.parent)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the trained model, and the sheet that compares it with the first."""
        if not state.is_world_process_zero:
            return
        before = self._sample_set(load_images(self._folder_of(0)), state)
        after = self._draw(state.global_step // self.updates_per_rollout, state)
        draw_sheet(self.folder / "before_after.png", [("before", before), ("after", after)])
        draw_reward_curve(self.folder.parent)

    def _draw(self, rollouts: int, state: TrainerState) -> SampleSet:
        prompts = [row["prompt"] for row in self.rows]
        with self.weights():
            images = stock_images(
                self.policy.pipeline, prompts, range(len(prompts)), self.batch_size, self.policy.sampling_kwargs
            )
        samples = self._sample_set(images, state)
        samples.save(self._folder_of(rollouts))
        return samples

    def _sample_set(self, images: Any, state: TrainerState) -> SampleSet:
        prompts = [row["prompt"] for row in self.rows]
        with preserved_rng():  # a run that is killed and begins anew finds the first pictures drawn
            scores = self.scorer.run(partial(self.reward_suite.score, images, self.rows, state))
        return SampleSet(prompts, list(range(len(prompts))), images, scores.total.tolist())

    def _folder_of(self, rollouts: int) -> Path:
        return self.folder / f"rollout-{rollouts:05d}"


class CurveCallback(TrainerCallback):
    """Draws only the reward curve, for runs without pictures."""

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the curve."""
        if state.is_world_process_zero:
            draw_reward_curve(Path(str(args.output_dir)))
