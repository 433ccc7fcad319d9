"""The DDPO trainer: a `transformers.Trainer` whose data are its own rollouts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from diffusers import DiffusionPipeline
from peft import LoraConfig
from torch.utils.data import DataLoader
from transformers import TrainerCallback, set_seed
from transformers.trainer_utils import TrainOutput

from ddpo_plugins import GuidanceSpec

from .config import DDPOConfig
from .hub.trainer import HubTrainer
from .inherited import RefusedMethods
from .learning.algorithm import Algorithm
from .learning.batches import training_batch
from .learning.rollout import Rollout
from .learning.update import GradientAccumulator
from .loop.epochs import EpochOnLastUpdate
from .loop.interrupts import StopRequest, StopRequestedError
from .loop.lockstep import Lockstep
from .loop.metrics import RunMetrics, mean_of, timed
from .loop.progress import RolloutProgress, closing_bars
from .loop.rewind import RewindPoint
from .loop.sharding import check_sharding
from .loop.stopping import RuleMetError
from .model.build import build_denoiser, build_policy, checked_options
from .model.denoiser import TrainedDenoiser
from .model.weights import RunWeights
from .monitoring.evaluating import EvaluationCallback
from .monitoring.evaluation import Evaluator
from .monitoring.snapshots import CurveCallback, SampleCallback
from .monitoring.steps import record_steps
from .monitoring.trackers import TrackedSetupCallback
from .policy.guidance.candidates import GuidanceRule
from .rollouts.collector import RolloutCollector
from .rollouts.datasets import check_datasets, position_batches
from .rollouts.schedule import PromptSchedule
from .runs.checkpoint import check_output_dir
from .runs.checkpointer import Checkpointer
from .runs.folder import RunFolder
from .runs.place import check_writable
from .runs.setup import RunSetup, name_of
from .runs.summary import RunSummary
from .scoring.functions import Detector, Reward
from .scoring.judges import Judges

logger = logging.getLogger(__name__)


class DDPOTrainer(RefusedMethods, HubTrainer):
    """
    Fine-tunes a diffusers text-to-image pipeline on rewards (Black et al., 2023): by DDPO, or by RWR for comparison.

    An epoch is one rollout and the training on it. Everything that `Trainer` does works: callbacks, `report_to`, schedulers,
    checkpoints, `train(resume_from_checkpoint=...)`, `evaluate`, `load_best_model_at_end`, `save_model`.

    Args:
        model (`str`, `Path` or `DiffusionPipeline`):
            A Hub id, a folder, `"embedded"` for the tiny model that ships with the package, or a pipeline.
        reward_funcs (`Callable` or `list`):
            Functions `(images, prompts, **columns) -> list[float | None]`, or [`RewardFunction`]s, which also have a name.
        args ([`DDPOConfig`], *optional*):
            The paper authors' LoRA settings by default.
        train_dataset (`datasets.Dataset`):
            Rows with a `prompt`; the other columns are passed to the rewards.
        eval_dataset (`datasets.Dataset` or `dict[str, Dataset]`, *optional*):
            Prompts for `evaluate()`, whose images have fixed seeds.
        eval_reward_funcs (`Callable` or `list`, *optional*):
            Additional rewards for `evaluate()`, which are never trained on.
        callbacks (`list[TrainerCallback]`, *optional*):
            Additional callbacks.
        optimizers (`tuple`, *optional*):
            An optimizer and a scheduler instead of those that `args` names.
        peft_config (`LoraConfig`, *optional*):
            The adapter; by default the authors': rank 4 on the attention projections. For training all weights set
            `args.full_finetuning`.
        detectors (`Callable` or `list`, *optional*):
            Functions like rewards that return how sure they are, in [0, 1], that an image games the reward, or
            [`DetectorFunction`]s. Their values are logged, and recorded for each image; see `args.detector_weights`.
        guidance (`Callable`, *optional*):
            The rule by which the pipeline combines the denoiser's outputs, if it cannot be inferred: a function `rule(outputs,
            guidance_scale, arguments)`; see [`GuidanceSpec`]. To give a rule by name, set `args.guidance`.
        guidance_rules (`Sequence[GuidanceSpec]`, *optional*):
            Rules of plugins, from `guidance_from_plugins()`.
        algorithm (`str` or [`Algorithm`], *optional*):
            The learning algorithm: a name, or an object with its own options. By default the one that `args` names.

    Raises:
        [`ConfigError`], [`PipelineError`], [`GuidanceError`]: raised before any long work; the message says what to change.
    """

    args: DDPOConfig
    model: TrainedDenoiser

    def __init__(
        self,
        model: str | Path | DiffusionPipeline,
        reward_funcs: Reward | Sequence[Reward],
        args: DDPOConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: LoraConfig | None = None,
        eval_reward_funcs: Reward | Sequence[Reward] | None = None,
        detectors: Detector | Sequence[Detector] | None = None,
        guidance: GuidanceRule | None = None,
        guidance_rules: Sequence[GuidanceSpec] | None = None,
        algorithm: str | Algorithm[Any, Any] | None = None,
    ):
        args = checked_options(args, peft_config, guidance, guidance_rules)
        check_writable(args.folder)
        chosen = args.resolve_algorithm(algorithm)
        self.judges = Judges.of(reward_funcs, eval_reward_funcs, detectors, args, args.device)
        train_dataset, eval_dataset = check_datasets(train_dataset, eval_dataset, args, self.judges, chosen)
        set_seed(args.seed)  # the adapter's initialisation
        self.policy = build_policy(model, args, guidance, guidance_rules, chosen.sampler)
        denoiser = build_denoiser(self.policy, args, peft_config)
        weights = self.judges.trained.objective_weights
        self.algorithm = chosen.bind(args, weights, self.policy.table, self.policy.noising)
        self._weights = RunWeights.of(self.policy.pipeline, denoiser, args, chosen.old_policy)
        self._stop = StopRequest()
        self._seconds: dict[str, float] = {}
        self._owns_output_dir = False
        self._forget_progress()
        data: dict[str, Any] = {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
        super().__init__(denoiser, args, **data, callbacks=callbacks, optimizers=optimizers)
        check_sharding(self.accelerator, args, chosen.old_policy is not None, args.load_best_model_at_end)
        self._lockstep = Lockstep(self.accelerator, self._stop)
        schedule = PromptSchedule.of(train_dataset, args)
        self._collector = RolloutCollector(
            self.policy, self.judges, self.algorithm, self._weights, schedule, self._lockstep, args
        )
        learner = (self.policy, self.algorithm, self._weights, args.beta, self.accelerator)
        self._gradients = GradientAccumulator(*learner, args.rows_per_forward)
        self._evaluator = Evaluator(self.policy, self.judges, self._weights, self._lockstep, args, eval_dataset)
        setup = RunSetup.of(args, name_of(model), self.policy, denoiser, self.judges, chosen, **data)
        self._checkpointer = Checkpointer(args, self.algorithm, self._weights, self.accelerator, setup)
        self._set_up_callbacks()

    def _forget_progress(self) -> None:
        """Forget the rollout and all measurements, as each call of `train` must."""
        self._rollout: Rollout[Any] | None = None
        self._rewind_point: RewindPoint | None = None
        self._metrics = RunMetrics()

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """
        Train. See `Trainer.train`.

        `resume_from_checkpoint=True` resumes from the newest checkpoint that is whole, and starts from the beginning if there
        is none. Ctrl-C, SIGTERM and SIGHUP stop after the step in progress and leave a checkpoint. A rule of
        `args.stop_when` also leaves a checkpoint, before anything is learned from the rollout that meets it, and `train`
        returns. A reward that fails after the first update leaves a checkpoint too.

        Raises:
            [`OutputDirError`]: the output folder holds another run, or cannot be written.
            [`CheckpointError`]: the checkpoint is damaged, or not there.
            [`RewardError`]: a reward broke its contract.
            `KeyboardInterrupt`: after Ctrl-C, when the checkpoint is written.
            `SystemExit`: the same after SIGTERM (status 143) and SIGHUP (129).
        """
        check_output_dir(self.args.folder, bool(resume_from_checkpoint) or self._owns_output_dir)
        self._owns_output_dir = True
        checkpoint = self._checkpointer.resolve(self.fetched(resume_from_checkpoint))
        self._forget_progress()
        with self._weights.loan.training(), self._checkpointer.owning_folder(), closing_bars():
            with self._lockstep.naming_lost_processes(), self._stop.handling_signals():
                try:
                    return super().train(checkpoint, *args, **kwargs)
                except StopRequestedError:
                    self._save_interrupted()
                    raise
                except RuleMetError as met:
                    return self._end_by_rule(met)

    def get_train_dataloader(self) -> DataLoader[int]:
        """Return batches of positions in the order of training. See [`position_batches`]."""
        return position_batches(self.args)

    @property
    def _rollout_index(self) -> int:
        """Index of the rollout that the next update trains on."""
        return self.state.global_step // self.args.updates_per_rollout

    def _save_after_failure(self) -> None:
        """Save the training state from before a rollout or an evaluation that failed."""
        if self.state.global_step and self._lockstep.fails_together:
            self._save_interrupted()

    def _end_by_rule(self, met: RuleMetError) -> TrainOutput:
        """Finish the run as `Trainer` does, after a rule has ended it."""
        self._save_interrupted()
        if self.is_world_process_zero():
            logger.warning("%s", met.advice(self.state.global_step))
        self.log(met.metrics)
        losses = [log["loss"] for log in self.state.log_history if "loss" in log]
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()
        self.is_in_train = False
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        self._finish_current_push()
        return TrainOutput(self.state.global_step, sum(losses) / max(len(losses), 1), met.metrics)

    # ---- training ----

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Make a rollout if the last one is used up, then accumulate the gradient of a batch of its images."""
        model.eval()  # dropout stays off in rollout and training; gradients and checkpointing do not need train()
        if self._rewind_point is None or self._rewind_point.step != self.state.global_step:
            self._rewind_point = RewindPoint.now(self.state.global_step, self._metrics)
        rollout = self._rollout
        if rollout is None or rollout.index != self._rollout_index:
            self._rollout = rollout = self._collector.collect(
                model, self._rollout_index, self.state, self._metrics, on_failure=self._save_after_failure
            )
            self._rewind_point = RewindPoint.now(self.state.global_step, self._metrics)
        with timed(self._seconds, "training"):
            positions = inputs["positions"].cpu()  # never across two passes: batches divide a rollout
            fraction, seed, process = self.args.timestep_fraction, self.args.seed, self.args.process_index
            batch = training_batch(self.algorithm, rollout, positions, fraction, seed, process)
            share = self.current_gradient_accumulation_steps
            return self._gradients.accumulate(model, batch, share, self._lockstep.check, self._metrics) / share

    # ---- logging and evaluation ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the measurements of rollouts and losses since the last log, averaged over time and over processes."""
        if "loss" in logs:
            self._metrics.note({f"seconds/{name}": self._seconds.pop(name) for name in tuple(self._seconds)})
            logs |= record_steps(self.args, self.state.global_step, mean_of(gather_object([self._metrics.drain()])))
        due = self.control.should_log and "loss" not in logs
        super().log(logs, start_time)
        # `Trainer` takes any log for the one that is due: after a log of pictures, the main process alone would skip it
        self.control.should_log |= due

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """
        Judge images of `eval_dataset`, by default the run's own, and log [`evaluation_figures`]: `eval_reward` and so on, or
        `eval_{dataset}_reward` for several datasets. In training, evaluations of the run's own are recorded.
        """
        eval_dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(eval_dataset, dict):
            each = [self.evaluate(data, ignore_keys, f"{metric_key_prefix}_{n}") for n, data in eval_dataset.items()]
            return {name: value for metrics in each for name, value in metrics.items()}
        model, on_failure = self.model_wrapped, self._save_after_failure if self.is_in_train else None
        with timed(self._seconds, "evaluation"):
            metrics = self._evaluator.evaluate(model, eval_dataset, metric_key_prefix, self.state, on_failure)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # ---- saving ----

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write diffusers' own files (called by `save_model` and for checkpoints, by some versions in every process)."""
        folder = Path(output_dir or self.args.folder)
        if self.args.should_save:
            with self._stop.finishing(), self._checkpointer.saving(folder) as place:
                self._weights.save(place, self.policy.pipeline, state_dict)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any = None) -> None:
        # Its rewards are remembered already, so a rollout that is still in use must be saved, not made again.
        in_use = self._rollout is not None and self._rollout.index == self._rollout_index
        with self._checkpointer.writing(self.state, self._rollout if in_use else None, self._metrics):
            super()._save_checkpoint(model, trial)
        self.push_checkpoint()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        state = self._checkpointer.load(Path(resume_from_checkpoint))
        self._rollout = state.rollout
        self._metrics.load_state_dict(state.metrics)
        self._load_rng_state(resume_from_checkpoint)  # `Trainer` does it with the next update, which there may not be

    def _load_best_model(self) -> None:
        self._weights.load_saved(Path(str(self.state.best_model_checkpoint)))

    def _save_interrupted(self) -> None:
        """Save the state at the last rewind point; work done since then is repeated on resume."""
        if self._checkpointer.is_newest(self.state.global_step):
            return  # not written again: if that were killed, there might be none left
        if self._rewind_point is not None and self._rewind_point.step == self.state.global_step:  # not in an evaluation
            self._rewind_point.restore(self._metrics)
        self.model_wrapped.zero_grad()
        self._save_checkpoint(self.model)
        logger.warning("Saved checkpoint-%d in %s.", self.state.global_step, self.args.output_dir)

    @property
    def summary(self) -> RunSummary:
        """The result of the run so far, from its folder."""
        return RunSummary.of(RunFolder(self.args.folder))

    def _set_up_callbacks(self) -> None:
        args = self.args
        EpochOnLastUpdate(args.updates_per_rollout).replace_default(self.callback_handler)
        RolloutProgress.replace_default(self, args)
        for callback in self._weights.callbacks:
            self.add_callback(callback)
        self.add_callback(TrackedSetupCallback(self._checkpointer, self))
        self.add_callback(EvaluationCallback(self._evaluator, self.evaluate))
        pictures = (self.policy, self.judges, self._collector.schedule.rows, args, self._weights, self)
        self.add_callback(SampleCallback(*pictures) if args.num_sample_images else CurveCallback())
