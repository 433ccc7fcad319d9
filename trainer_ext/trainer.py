"""The DDPO trainer: a `transformers.Trainer` whose data are its own rollouts."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from diffusers import DiffusionPipeline
from peft import LoraConfig
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, set_seed
from transformers.trainer_utils import TrainOutput

from ddpo_plugins import GuidanceSpec

from .config import DDPOConfig
from .errors import ConfigError
from .learning.algorithms import ALGORITHMS
from .learning.order import seeded_generator, shuffled_steps
from .learning.rollout import Rollout
from .learning.update import GradientAccumulator, TrainingBatch
from .loop.epochs import EpochOnLastUpdate
from .loop.interrupts import StoppedError, StopRequest
from .loop.lockstep import Lockstep
from .loop.metrics import RunMetrics, mean_of, timed
from .loop.progress import RolloutProgress
from .loop.rewind import RewindPoint
from .loop.sharding import check_sharding, check_shares
from .loop.stopping import RuleMetError
from .model.denoiser import TrainedDenoiser, freeze
from .model.ema import MovingAverage, check_average
from .model.loading import load_pipeline
from .model.lora import complete_lora_config
from .monitoring.evaluation import evaluation_metrics, evaluation_share, score_dataset
from .monitoring.snapshots import CurveCallback, SampleCallback
from .policy.guidance.candidates import GuidanceRule, resolve_rule
from .policy.pipeline import LogProbPipeline
from .rollouts.collector import Collector
from .rollouts.datasets import check_datasets, check_prompts
from .rollouts.maker import RolloutMaker
from .rollouts.schedule import PromptSchedule
from .runs.checkpoint import DDPOState, check_output_dir, check_state
from .runs.manifest import prune, remove_manifest, resolve_checkpoint, write_manifest
from .runs.setup import RunRecordCallback, RunSetup, name_of
from .scoring.background import BackgroundScorer
from .scoring.calls import Calls
from .scoring.functions import Detector, DetectorFunction, Reward, RewardFunction, named_functions
from .scoring.suite import RewardSuite, evaluation_suites

logger = logging.getLogger(__name__)


class DDPOTrainer(Trainer):
    """
    Fine-tunes a diffusers text-to-image pipeline on rewards (Black et al., 2023): by DDPO, or by RWR to compare with.

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
            Rows with a `prompt`; rewards get the other columns.
        eval_dataset (`datasets.Dataset` or `dict[str, Dataset]`, *optional*):
            The same, for `evaluate()`; its images have fixed seeds.
        eval_reward_funcs (`Callable` or `list`, *optional*):
            More rewards for `evaluate()`, which are never trained on.
        callbacks (`list[TrainerCallback]`, *optional*):
            More callbacks.
        optimizers (`tuple`, *optional*):
            An optimizer and a scheduler instead of those that `args` names.
        peft_config (`LoraConfig`, *optional*):
            The adapter; by default the authors': rank 4 on the attention projections. For training all weights set
            `args.full_finetuning`.
        detectors (`Callable` or `list`, *optional*):
            Functions like rewards that say in [0, 1] how sure they are that an image games the reward, or
            [`DetectorFunction`]s. They are logged, and recorded for each image; see `args.detector_weights`.
        guidance (`Callable`, *optional*):
            How the pipeline combines the denoiser's outputs, where that is not found out: a function `rule(outputs,
            guidance_scale, arguments)`; see [`GuidanceSpec`]. For a rule by name set `args.guidance`.
        guidance_rules (`Sequence[GuidanceSpec]`, *optional*):
            Rules of plugins, from `guidance_from_plugins()`.

    Raises:
        [`ConfigError`], [`PipelineError`], [`GuidanceError`]: before any long work, saying what to change.
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
        eval_reward_funcs: Reward | Sequence[Reward] = (),
        detectors: Detector | Sequence[Detector] = (),
        guidance: GuidanceRule | None = None,
        guidance_rules: Sequence[GuidanceSpec] = (),
    ):
        args = DDPOConfig() if args is None else args
        if guidance is not None and args.guidance is not None:
            raise ConfigError("guidance is given both to DDPOTrainer and in its args; give only one of them.")
        rule = resolve_rule(guidance or args.guidance, guidance_rules)
        if args.full_finetuning and peft_config is not None:
            raise ConfigError(
                "full_finetuning trains all weights, and peft_config asks for an adapter; give only one of them."
            )
        rewards, watching = named_functions(reward_funcs, RewardFunction), named_functions(detectors, DetectorFunction)
        calls = Calls()
        self.reward_suite = RewardSuite(rewards, args.reward_weights, watching, args.detector_weights, calls)
        self.eval_suites = evaluation_suites(self.reward_suite, named_functions(eval_reward_funcs, RewardFunction))
        self._scorer = BackgroundScorer(calls, args.overlap_rewards, args.reward_timeout)
        train_dataset = check_datasets(train_dataset, eval_dataset)

        set_seed(args.seed)  # the adapter's initialisation
        pipeline = load_pipeline(model, args.weights_dtype).to(args.device)
        self.policy = LogProbPipeline(pipeline, **args.policy_kwargs, guidance=rule, guidance_rules=guidance_rules)
        adapter = None if args.full_finetuning else complete_lora_config(peft_config, self.policy.denoiser)
        freeze(pipeline)
        denoiser = TrainedDenoiser(self.policy.denoiser, self.policy.denoiser_name, adapter, args.beta > 0)

        self.algorithm = ALGORITHMS[args.algorithm](args, self.reward_suite.objective_weights, self.policy.noising)
        self._trained_steps = self.algorithm.steps(self.policy.table, args.skip_last_steps)
        self.prompt_schedule = PromptSchedule(
            train_dataset, args.num_images_per_rollout, args.num_images_per_prompt, args.seed
        )
        self._average = MovingAverage(denoiser, args.ema_decay) if args.ema_decay else None
        self._rollout: Rollout[Any] | None = None
        self._metrics = RunMetrics()
        self._seconds: dict[str, float] = {}
        self._stop = StopRequest()
        self._moment: RewindPoint | None = None
        self._newest_checkpoint: Path | None = None
        self._owns_output_dir = False
        others: dict[str, Any] = {"eval_dataset": eval_dataset, "callbacks": callbacks, "optimizers": optimizers}
        super().__init__(denoiser, args, train_dataset=train_dataset, **others)
        check_sharding(self.accelerator, args)
        self._lockstep = Lockstep(self.accelerator, self._stop)
        self._gradients = GradientAccumulator(self.policy, self.algorithm, denoiser, args.beta, self.accelerator)
        collector = Collector(
            self.policy, self.reward_suite, self._scorer, self.algorithm, denoiser, args, self._lockstep
        )
        self._maker = RolloutMaker(collector, self.reward_suite, self.algorithm, self.prompt_schedule, args)
        self._set_up_callbacks(args, name_of(model))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """
        Train. See `Trainer.train`.

        `resume_from_checkpoint=True` goes on from the newest checkpoint that is whole, and begins anew where there is none.
        Ctrl-C stops after the step in progress and leaves a checkpoint. So does a rule of `args.stop_when`, before anything
        is learned from the rollout that meets it, but then this returns. So does a reward that fails, once an update is made.

        Raises:
            [`OutputDirError`]: the output folder holds another run.
            [`CheckpointError`]: the checkpoint is damaged, or not there.
            [`RewardError`]: a reward broke its contract.
            `KeyboardInterrupt`: after Ctrl-C, when the checkpoint is written.
        """
        resuming = bool(resume_from_checkpoint) or self._owns_output_dir
        check_output_dir(self.args.folder, resuming)
        self._owns_output_dir = True
        checkpoint = resolve_checkpoint(self.args.folder, resume_from_checkpoint, self.is_world_process_zero())
        self._rollout = self._moment = self._newest_checkpoint = None
        self._metrics = RunMetrics()
        with self._stop.handling_signals():
            try:
                return super().train(checkpoint, *args, **kwargs)
            except StoppedError:
                self._save_interrupted()
                raise
            except RuleMetError as met:
                return self._end_by_rule(met)

    # ---- data: the Trainer's batches are positions in the order of training ----

    def get_train_dataloader(self) -> DataLoader[int]:
        """Return batches of positions `(b,)` in this process's shuffled images, for all passes over one rollout."""
        positions = range(self.args.images_per_process * self.args.num_inner_epochs)
        return DataLoader(
            positions,  # type: ignore[arg-type]
            batch_size=self.args.per_device_train_batch_size,
            collate_fn=_positions,
            generator=torch.Generator(),  # or each pass would draw a seed from the global one, a resumed pass again
        )

    def _training_order(self, rollout: Rollout[Any], inner_epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(B,)` and their steps `(B, K)` in the order of one pass: a pure function of seed, rollout and pass."""
        generator = seeded_generator(self.args.seed, rollout.index, inner_epoch, self.args.process_index)
        images = self.algorithm.order(rollout, generator)
        return images, shuffled_steps(self._trained_steps, len(rollout), self.args.timestep_fraction, generator)

    # ---- rollout ----

    @property
    def _rollout_index(self) -> int:
        """Of the rollout that the next update is on."""
        return self.state.global_step // self.args.updates_per_rollout

    def _save_after_failure(self) -> None:
        """Save what was learned before a rollout that failed."""
        if self.state.global_step and self._lockstep.fails_together:
            self._save_interrupted()

    def _end_by_rule(self, met: RuleMetError) -> TrainOutput:
        """Do what `Trainer` does at the end of a run."""
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
        if self._moment is None or self._moment.step != self.state.global_step:
            self._moment = RewindPoint.now(self.state.global_step, self._metrics)
        if self._rollout is None or self._rollout.index != self._rollout_index:
            self._rollout = self._maker.make(
                model, self._rollout_index, self.state, self._metrics, self._save_after_failure
            )
            self._moment = RewindPoint.now(self.state.global_step, self._metrics)
        with timed(self._seconds, "training"):
            positions = inputs["positions"].cpu()  # never across two passes: batches divide a rollout
            inner_epoch = int(positions[0]) // len(self._rollout)
            images, steps = self._training_order(self._rollout, inner_epoch)
            here = positions % len(self._rollout)
            noise = seeded_generator(self.args.seed, self._rollout.index, int(positions[0]), self.args.process_index, 1)
            total = self._gradients.accumulate(
                model,
                TrainingBatch(self._rollout, images[here], steps[here], noise),
                self.current_gradient_accumulation_steps,
                self._lockstep.check,
                lambda output: self._metrics.note(output.metrics),
            )
            self._metrics.note({"loss": total})
            return total / self.current_gradient_accumulation_steps

    # ---- logging and evaluation ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what rollouts and losses measured since the last log, averaged over it and over processes."""
        if "loss" in logs:
            self._metrics.note({"seconds/training": self._seconds.pop("training", 0.0)})
            logs = {**logs, **mean_of(gather_object([self._metrics.drain()]))}
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """
        Sample one image for each row of `eval_dataset`, with fixed seeds, and log its rewards.

        Returns:
            `dict[str, float]`: `eval_reward`, `eval_reward_std`, and `eval_rewards/{name}/mean` of every reward, also of those
            in `eval_reward_funcs`. For several datasets `eval_{dataset}_reward`, and so on.
        """
        eval_dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(eval_dataset, dict):
            each = [self.evaluate(data, ignore_keys, f"{metric_key_prefix}_{n}") for n, data in eval_dataset.items()]
            return {name: value for metrics in each for name, value in metrics.items()}
        dataset = check_prompts(eval_dataset, "eval_dataset")
        check_shares(self.accelerator.distributed_type, len(dataset), self.args.world_size)
        share = evaluation_share(dataset, self.args.process_index, self.args.world_size)
        batches = share.batches(self.args.rollout_batch_size)
        self.model_wrapped.eval()
        with self._lockstep.guarded(), self._evaluated_weights():
            own = score_dataset(self.policy, self.eval_suites, self._scorer, batches, self.model_wrapped, self.state)
        metrics = evaluation_metrics(gather_object(own), metric_key_prefix)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluated_weights(self) -> AbstractContextManager[None]:
        """The moving average, if there is one, else the trained weights."""
        return contextlib.nullcontext() if self._average is None else self._average.applied()

    # ---- saving ----

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write diffusers' own files (called by `save_model` and for checkpoints, by some versions in every process)."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.folder)
        folder.mkdir(parents=True, exist_ok=True)
        with self._evaluated_weights():
            self.model.save(folder, self.policy.pipeline, state_dict)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any = None) -> None:
        folder = self.args.folder / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # remove none before this one is sealed
        try:
            remove_manifest(folder)
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        # Its rewards are remembered already, so a rollout that is still in use must be saved, not made again.
        in_use = self._rollout is not None and self._rollout.index == self._rollout_index
        rollout = self._rollout if in_use else None
        state = DDPOState(
            self.args.algorithm, self.algorithm.weighting.state_dict(), rollout, self._metrics.state_dict()
        )
        state.save(folder, self.args.process_index, self.args.world_size)
        if self._average is not None and self.args.should_save:
            self._average.save(folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_manifest(folder)
            prune(self.args.folder, limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()  # launchers kill the others when one process ends
        self._newest_checkpoint = folder.resolve()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        check_average(folder, self.args.ema_decay)
        state = DDPOState.load(folder, self.args.process_index, self.args.world_size)
        check_state(folder, state, self.args.algorithm, self.args.images_per_process)
        self.model.load(folder)
        if self._average is not None:
            self._average.load(folder)
        self.algorithm.weighting.load_state_dict(state.weighting)
        self._rollout = state.rollout
        self._metrics.load_state_dict(state.metrics)
        self._load_rng_state(resume_from_checkpoint)  # `Trainer` does it with the next update, which there may not be
        self._newest_checkpoint = folder.resolve()

    def _load_best_model(self) -> None:
        self.model.load(Path(str(self.state.best_model_checkpoint)))
        if self._average is not None:
            self._average.restart()

    def _save_interrupted(self) -> None:
        """Save the state at the last moment; what was made since is made again on resume."""
        if self._newest_checkpoint == (self.args.folder / f"checkpoint-{self.state.global_step}").resolve():
            return  # not written again: if that were killed, there might be none left
        if self._moment is not None:
            self._moment.restore(self._metrics)
        self.model_wrapped.zero_grad()
        self._save_checkpoint(self.model)
        logger.warning("Saved checkpoint-%d in %s.", self.state.global_step, self.args.output_dir)

    def _set_up_callbacks(self, args: DDPOConfig, model_name: str) -> None:
        EpochOnLastUpdate(args.updates_per_rollout).replace_default(self.callback_handler)
        RolloutProgress.replace_default(self, not args.disable_tqdm)
        if self._average is not None:
            self.add_callback(self._average)
        self.add_callback(RunRecordCallback(RunSetup.of(args, model_name, self.policy.pipeline, self.eval_suites)))
        rewards = self.reward_suite.without_detectors
        pictures = (self.policy, rewards, self._scorer, self.prompt_schedule.rows, args, self._evaluated_weights)
        self.add_callback(SampleCallback(*pictures) if args.num_sample_images else CurveCallback())


def _positions(batch: list[int]) -> dict[str, torch.Tensor]:
    return {"positions": torch.tensor(batch)}
