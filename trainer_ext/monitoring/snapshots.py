"""Pictures of fixed prompts and seeds through training, with their rewards, and the reward curve."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ddpo_plugins.names import FIXED_SAMPLES

from ..columns import rows_with_different
from ..config import DDPOConfig
from ..loop.describing import describing
from ..loop.progress import StepBar
from ..loop.progress.views import show_in_notebook
from ..loop.rewind import preserved_rng
from ..model.weights import RunWeights
from ..policy.pipeline import LogProbPipeline
from ..policy.stock import default_images, stock_images
from ..rollouts.measure import image_records
from ..rollouts.schedule import SamplingPlan
from ..runs.folder import RunFolder, picture_files
from ..runs.pictures.curve import draw_reward_curve
from ..runs.pictures.sheets import SampleSet, draw_sheet
from ..runs.pictures.strip import draw_strip
from ..runs.records import write_records
from ..scoring.judges import Judges
from .trackers import Picture, Reports, show_pictures


class SampleCallback(TrainerCallback):
    """
    Draws fixed prompts with fixed seeds before, during and after training, scores them, and draws the reward curve.

    Prompts and seeds are the same each time, so that a change of their rewards measures what was learned.

    Args:
        policy ([`LogProbPipeline`]):
            The policy that is trained.
        judges ([`Judges`]):
            The rewards that are trained on score the pictures.
        rows (`datasets.Dataset`):
            The rows from which prompts are taken.
        args ([`DDPOConfig`]):
            Options of the run: how many pictures to draw, and how often.
        weights ([`RunWeights`]):
            The weights to sample with: the moving average, or the trained weights.
        trainer ([`Reports`]):
            Logs `samples/reward`, the pictures' mean reward; its callbacks own the trackers, which get the pictures.
    """

    def __init__(
        self,
        policy: LogProbPipeline,
        judges: Judges,
        rows: Dataset,
        args: DDPOConfig,
        weights: RunWeights,
        trainer: Reports,
    ):
        self.policy = policy
        self.weights = weights
        self.trainer = trainer
        self.score = judges.trained.without_detectors.score
        self.scorer = judges.scorer
        chosen = [dict(rows[row]) for row in rows_with_different(rows, "prompt", args.num_sample_images)]
        self.plan = SamplingPlan(chosen, list(range(len(chosen))), 1)
        self.folder = RunFolder(args.folder)
        self.trackers = list(args.report_to or ())
        self.batch_size = args.rollout_batch_size
        self.shows_bar = not args.disable_tqdm
        self.every = args.sample_every * args.updates_per_rollout
        self.updates_per_rollout = args.updates_per_rollout
        self.defaults, self.call_kwargs = args.sample_defaults, args.call_kwargs

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """
        Draw the model before training, even if an earlier run, which never wrote a checkpoint, left pictures there. A run that
        is resumed into another folder draws it with the adapter off. A reward that fails here ends the run before it trains.
        """
        if not state.is_world_process_zero:
            return
        logged = any(FIXED_SAMPLES in log for log in state.log_history)  # a checkpoint that is resumed from has it
        begins = state.global_step == 0
        if begins and not (logged and self.folder.sample_file(0).exists()):
            self._draw(0, state)
        elif not self.folder.sample_file(0).exists() and self.weights.keeps_base:
            self._draw(0, state, untrained=True)
        if not logged and begins:
            self._log_mean(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Draw every few rollouts and after the last update, before its checkpoint, so that no picture is ever missing."""
        due = (self.every and state.global_step % self.every == 0) or state.global_step >= state.max_steps
        if state.is_world_process_zero and due:
            with describing(f"The pictures after {state.global_step} updates"):
                self._draw(state.global_step, state)
                self._log_mean(state)
            if state.global_step < state.max_steps:  # after the last update it is drawn when training ends
                draw_reward_curve(self.folder)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the trained model, and the sheet that compares it with the first."""
        if not state.is_world_process_zero:
            return
        # Those that the last checkpoint's log has are not drawn again: a reward that draws random numbers would differ.
        drawn = any(FIXED_SAMPLES in log and log["step"] == state.global_step for log in state.log_history)
        with describing(f"The pictures after {state.global_step} updates"):
            if not (drawn and self.folder.pictures_of(state.global_step).exists()) or args.load_best_model_at_end:
                self._draw(state.global_step, state)
        if self.defaults:
            with describing("The rewards with the base's own scheduler, steps and guidance"):
                self._score_defaults(state)
        with describing("The sheet that compares before and after"):
            self._compare(state.global_step)
        with describing("The strip of pictures through training"):
            draw_strip(self.folder)
        draw_reward_curve(self.folder)
        show_in_notebook([self.folder.comparison_file, self.folder.curve_file], self.shows_bar)

    def _score_defaults(self, state: TrainerState) -> None:
        """Score the fixed prompts and seeds as users of the base draw them, without the adapter and with it."""
        moments = {0: self.weights.untrained, state.global_step: self.weights.evaluated}
        for updates, weights in moments.items():
            with weights():
                images = default_images(
                    self.policy.pipeline, self.plan.prompts, self.plan.seeds, self.batch_size, self.call_kwargs
                )
            records, _ = self._scored(images, updates, state)
            write_records(self.folder.default_sample_file(updates), records)

    def _compare(self, updates: int) -> None:
        sheets = self.folder.samples()
        before, *_ = sheets  # of the run that was resumed, which may have had another num_sample_images
        after = next(sheet for sheet in sheets if sheet.updates == updates)
        rows = [("before" if before.updates == 0 else f"update {before.updates}", before), ("after", after)]
        draw_sheet(self.folder.comparison_file, [(label, SampleSet.of(sheet)) for label, sheet in rows])

    def _draw(self, updates: int, state: TrainerState, untrained: bool = False) -> None:
        policy, plan = self.policy, self.plan
        steps = -(-len(plan.seeds) // self.batch_size) * policy.table.num_steps
        title = "pictures before training" if untrained or not updates else f"pictures after {updates} updates"
        with (
            self.weights.untrained() if untrained else self.weights.evaluated(),
            StepBar(steps, title, self.shows_bar) as bar,
        ):
            images = stock_images(
                policy.pipeline,
                plan.prompts,
                plan.seeds,
                self.batch_size,
                policy.sampling_kwargs,
                bar.on_step,
                policy.sampler,
            )
        records, rewards = self._scored(images, updates, state)
        write_records(self.folder.sample_file(updates), records)
        samples = SampleSet(plan.prompts, plan.seeds, images, rewards)
        samples.save(self.folder.pictures_of(updates))
        self._show(updates, rewards)

    def _show(self, updates: int, rewards: Sequence[float]) -> None:
        """Give the newest pictures to the trackers."""
        files = picture_files(self.folder.pictures_of(updates))
        about = zip(files, self.plan.prompts, self.plan.seeds, rewards, strict=True)
        pictures = [Picture.captioned(*each) for each in about]
        show_pictures(self.trackers, self.trainer.callback_handler.callbacks, pictures, updates)

    def _scored(
        self, images: torch.Tensor, updates: int, state: TrainerState
    ) -> tuple[list[dict[str, Any]], list[float]]:
        """Score pictures; return their records, and their rewards."""
        with preserved_rng():  # scoring pictures changes nothing for the rewards of rollouts, which may draw too
            scores = self.scorer.run(partial(self.score, images, self.plan.image_rows, state))
        moment = {"updates": updates, "rollouts": updates / self.updates_per_rollout}
        return image_records(moment, self.plan, scores), scores.total.tolist()

    def _log_mean(self, state: TrainerState) -> None:
        """Log the mean reward of the newest pictures, unless none has one. There may be later ones of a run that was killed."""
        rewards = [sheet for sheet in self.folder.samples() if sheet.updates <= state.global_step][-1].rewards
        if not np.isnan(rewards).all():
            self.trainer.log({FIXED_SAMPLES: float(np.nanmean(rewards))})


class CurveCallback(TrainerCallback):
    """Draws only the reward curve, for runs without pictures."""

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the curve."""
        if state.is_world_process_zero and isinstance(args, DDPOConfig):
            draw_reward_curve(RunFolder(args.folder))
            show_in_notebook([RunFolder(args.folder).curve_file], not args.disable_tqdm)
