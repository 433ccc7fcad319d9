"""The DDPO trainer: a `transformers.Trainer` whose data are its own rollouts."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from diffusers import DiffusionPipeline
from peft import LoraConfig
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, set_seed
from transformers.trainer_utils import TrainOutput

from ddpo_plugins.errors import RewardError

from .advantages import PerPromptStatTracker
from .callbacks import CurveCallback, SampleCallback
from .checkpoint import DDPOState, check_output_dir
from .config import DDPOConfig
from .data import check_prompts
from .denoiser import TrainedDenoiser, default_lora_config
from .errors import ConfigError, PipelineError
from .interrupts import StopRequest
from .loading import load_pipeline
from .losses import clipped_surrogate_loss
from .policy import LogProbPipeline, Trajectory
from .progress import RolloutProgress, rollout_bar
from .records import image_records, write_records
from .rewards import RewardFunction, RewardSuite, Scores, named_rewards
from .rollout import Assignment, PromptSchedule, Rollout, image_generators, shuffled_steps, trainable_steps

logger = logging.getLogger(__name__)


class DDPOTrainer(Trainer):
    """
    Fine-tunes a diffusers text-to-image pipeline on rewards by DDPO-IS (Black et al., 2023).

    An epoch is one rollout and the training on it. Everything that `Trainer` does works: callbacks, `report_to`, schedulers,
    checkpoints, `train(resume_from_checkpoint=...)`, `save_model`.

    Args:
        model (`str`, `Path` or `DiffusionPipeline`):
            A Hub id, a folder, `"embedded"` for the tiny model that ships with the package, or a pipeline.
        reward_funcs (`Callable` or `list`):
            Functions `(images, prompts, **columns) -> list[float | None]`, or [`RewardFunction`]s, which also have a name.
        args ([`DDPOConfig`], *optional*):
            The paper authors' LoRA settings by default.
        train_dataset (`datasets.Dataset`):
            Rows with a `prompt`; rewards get the other columns.
        eval_dataset (`datasets.Dataset`, *optional*):
            The same, for `evaluate()`; its images have fixed seeds.
        callbacks (`list[TrainerCallback]`, *optional*):
            More callbacks.
        optimizers (`tuple`, *optional*):
            An optimizer and a scheduler instead of those that `args` names.
        peft_config (`LoraConfig`, *optional*):
            The adapter; by default the authors': rank 4 on the attention projections. For training all weights set
            `args.full_finetuning`.

    Raises:
        [`ConfigError`], [`PipelineError`], [`GuidanceError`]: before any long work, saying what to change.
    """

    args: DDPOConfig
    model: TrainedDenoiser

    def __init__(
        self,
        model: str | Path | DiffusionPipeline,
        reward_funcs: Callable[..., Any] | RewardFunction | Sequence[Callable[..., Any] | RewardFunction],
        args: DDPOConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: LoraConfig | None = None,
    ):
        args = DDPOConfig() if args is None else args
        if args.full_finetuning and peft_config is not None:
            raise ConfigError(
                "full_finetuning trains all weights, and peft_config asks for an adapter; give only one of them."
            )
        self.reward_suite = RewardSuite(named_rewards(reward_funcs), args.reward_weights)
        train_dataset = check_prompts(train_dataset, "train_dataset")
        if eval_dataset is not None:
            check_prompts(eval_dataset, "eval_dataset")

        set_seed(args.seed)  # the adapter's initialisation
        pipeline = load_pipeline(model, _weights_dtype(args)).to(args.device)
        self.policy = LogProbPipeline(
            pipeline, args.num_inference_steps, args.guidance_scale, args.eta, args.guidance, args.call_kwargs
        )
        self._trainable_steps = trainable_steps(self.policy.table, args.skip_last_steps)
        adapter = None if args.full_finetuning else peft_config or default_lora_config()
        for component in pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                component.requires_grad_(False)
        denoiser = TrainedDenoiser(self.policy.denoiser, self.policy.denoiser_name, adapter)

        self.prompt_schedule = PromptSchedule(
            train_dataset, args.num_images_per_rollout, args.num_images_per_prompt, args.seed
        )
        self.tracker = PerPromptStatTracker(args.stat_buffer_size, args.stat_min_count)
        self._rollout: Rollout | None = None
        self._metrics: dict[str, list[float]] = defaultdict(list)
        self._seconds: dict[str, float] = {}
        self._stop = StopRequest()
        self._replay_checked = False
        self._owns_output_dir = False
        super().__init__(
            model=denoiser,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self._set_up_callbacks(args)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """
        Train. See `Trainer.train`.

        Ctrl-C stops after the step in progress and leaves a checkpoint.

        Raises:
            [`OutputDirError`]: the output folder holds another run.
            [`RewardError`]: a reward broke its contract.
            `KeyboardInterrupt`: after Ctrl-C, when the checkpoint is written.
        """
        resuming = bool(resume_from_checkpoint) or self._owns_output_dir
        check_output_dir(self.args.folder, resuming)
        self._owns_output_dir = True
        with self._stop.listening():
            try:
                return super().train(resume_from_checkpoint, *args, **kwargs)
            except KeyboardInterrupt:
                self._save_interrupted()
                raise

    # ---- data: the Trainer's batches are positions in the order of training ----

    def get_train_dataloader(self) -> DataLoader[int]:
        """Return batches of positions `(b,)` in this process's shuffled images, for all passes over one rollout."""
        positions = range(self.args.images_per_process * self.args.num_inner_epochs)
        return DataLoader(positions, batch_size=self.args.per_device_train_batch_size, collate_fn=_positions)  # type: ignore[arg-type]

    def _training_order(self, rollout: Rollout, inner_epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(B,)` and their steps `(B, K)` in the order of one pass: a pure function of seed, rollout and pass."""
        entropy = [self.args.seed, rollout.index, inner_epoch, self.args.process_index]
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        images = torch.randperm(len(rollout), generator=generator)
        return images, shuffled_steps(self._trainable_steps, len(rollout), self.args.timestep_fraction, generator)

    # ---- rollout ----

    @property
    def _rollout_index(self) -> int:
        """Of the rollout that the next update is on."""
        return self.state.global_step // self.args.updates_per_rollout

    def _make_rollout(self, model: torch.nn.Module, index: int) -> Rollout:
        """Sample, score and compare with the prompt's other images."""
        assignment = self.prompt_schedule.assignment(index, self.args.process_index, self.args.world_size)
        trajectory, scores = self._sample_and_score(model, index, assignment)
        records = gather_object(image_records(index, assignment, scores))
        advantages = self._update_advantages(records)
        if self.is_world_process_zero():
            write_records(self.args.folder, index, records)
        first = self.args.process_index * len(assignment.seeds)
        own = advantages[first : first + len(assignment.seeds)]
        return Rollout(index, trajectory, scores, own)

    def _sample_and_score(
        self, model: torch.nn.Module, index: int, assignment: Assignment
    ) -> tuple[Trajectory, Scores]:
        batches = assignment.batches(self.args.rollout_batch_size)
        trajectories, scores = [], []
        seconds = {"rollout": 0.0, "reward": 0.0}
        show = not self.args.disable_tqdm and self.is_world_process_zero()
        with rollout_bar(len(batches) * self.policy.table.num_steps, index, show) as bar:

            def on_step(step: int) -> None:
                bar.update()
                self._stop.check()

            for batch in batches:
                with _timed(seconds, "rollout"):
                    sampled = self.policy.sample(
                        [row["prompt"] for row in batch.rows],
                        image_generators(batch.seeds),
                        num_images_per_prompt=batch.num_images_per_prompt,
                        denoiser=model,
                        on_step=on_step,
                    )
                    trajectories.append(sampled.trajectory.cpu())
                if not self._replay_checked:
                    self._check_replay(model, sampled.trajectory)
                with _timed(seconds, "reward"):
                    scores.append(self.reward_suite.score(sampled.images, batch.image_rows, self.state))
                bar.set_postfix({"reward": f"{scores[-1].mean:.4g}"})
        for name, value in seconds.items():
            self._metrics[f"seconds/{name}"].append(value)
        self._metrics["images_per_second"].append(len(assignment.seeds) * self.args.world_size / seconds["rollout"])
        joined = Scores.concatenate(scores)
        for name, value in joined.metrics.items():
            self._metrics[name].append(value)
        return Trajectory.concatenate(trajectories), joined

    def _update_advantages(self, records: Sequence[dict[str, Any]]) -> torch.Tensor:
        """Standardise the rewards of all processes, and log them."""
        rewards = np.array([record["reward"] for record in records], np.float64)
        if np.isnan(rewards).all():
            raise RewardError(
                "No image of this rollout got a reward (every reward was None), so there is nothing to learn from."
            )
        advantages = self.tracker.update([record["prompt"] for record in records], rewards)
        self._metrics["reward"].append(float(np.nanmean(rewards)))
        self._metrics["reward_std"].append(float(np.nanstd(rewards)))
        self._metrics["frac_reward_zero_std"].append(advantages.frac_reward_zero_std)
        self._metrics["frac_reward_missing"].append(float(np.isnan(rewards).mean()))
        for name in self.reward_suite.names:
            values = np.array([record[f"rewards/{name}"] for record in records], np.float64)
            if not np.isnan(values).all():
                self._metrics[f"rewards/{name}/mean"].append(float(np.nanmean(values)))
                self._metrics[f"rewards/{name}/std"].append(float(np.nanstd(values)))
        return torch.from_numpy(advantages.values).float().clamp(-self.args.advantage_clip, self.args.advantage_clip)

    def _check_replay(self, model: torch.nn.Module, trajectory: Trajectory) -> None:
        """Replay one step as it was sampled. Ratios that are not 1 before any update mean that training would be wrong."""
        rows = torch.arange(len(trajectory))
        steps = self._trainable_steps[:1].expand(len(rows))
        with torch.no_grad():
            error = self.policy.ratio_terms(trajectory, rows, steps, model).log_ratio.abs().max().item()
        if not error <= self.args.clip_range / 10:
            raise PipelineError(
                f"Replaying a step of the rollout gives a log-ratio of {error:.1e} before any update; it must be 0 (allowed: a "
                f"tenth of clip_range={self.args.clip_range:.0e}). Something in the pipeline is not deterministic: dropout, "
                "compiled or non-deterministic kernels, or an argument that the record does not see."
            )
        self._replay_checked = True

    # ---- training ----

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Make a rollout if the last one is used up, then accumulate the gradient of a batch of its images."""
        model.eval()  # dropout stays off in rollout and training; gradients and checkpointing do not need train()
        if self._rollout is None or self._rollout.index != self._rollout_index:
            self._rollout = self._make_rollout(model, self._rollout_index)
        with _timed(self._seconds, "training"):
            positions = inputs["positions"].cpu()  # never across two passes: batches divide a rollout
            images, steps = self._training_order(self._rollout, int(positions[0]) // len(self._rollout))
            positions = positions % len(self._rollout)
            return self._accumulate(model, self._rollout, images[positions], steps[positions])

    def _accumulate(
        self, model: torch.nn.Module, rollout: Rollout, images: torch.Tensor, steps: torch.Tensor
    ) -> torch.Tensor:
        """Backpropagate the loss of `images` `(b,)` at their `steps` `(b, K)`, one step of each image at a time."""
        advantages = rollout.advantages[images].to(self.args.device)
        num_chunks = steps.shape[1]
        total = torch.zeros((), device=self.args.device)
        for chunk in range(num_chunks):
            self._stop.check()
            # DDP averages gradients in the backward pass; once, in the last, is enough
            sync = contextlib.nullcontext() if chunk == num_chunks - 1 else self.accelerator.no_sync(model)
            with sync:
                terms = self.policy.ratio_terms(rollout.trajectory, images, steps[:, chunk], model)
                output = clipped_surrogate_loss(terms.log_ratio, advantages, self.args.clip_range)
                loss = output.loss / (num_chunks * self.current_gradient_accumulation_steps)
                self.accelerator.backward(loss)
            total += loss.detach()
            for name, value in output.metrics.items():
                self._metrics[name].append(value.item())
        return total

    # ---- logging and evaluation ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what rollouts and losses measured since the last log, averaged."""
        if "loss" in logs:
            self._metrics["seconds/training"].append(self._seconds.pop("training", 0.0))
            logs = {**logs, **{name: float(np.mean(values)) for name, values in self._metrics.items()}}
            self._metrics.clear()
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Dataset | None = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """
        Sample one image for each row of `eval_dataset`, with fixed seeds, and log its rewards.

        Returns:
            `dict[str, float]`: `eval_reward`, `eval_reward_std`, `eval_rewards/{name}/mean`.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        dataset = check_prompts(dataset, "eval_dataset")
        self.model_wrapped.eval()
        records = gather_object(self._evaluation_records(dataset))
        rewards = _column(records, "reward")
        metrics = {f"{metric_key_prefix}_reward": rewards.mean(), f"{metric_key_prefix}_reward_std": rewards.std()}
        for name in self.reward_suite.names:
            metrics[f"{metric_key_prefix}_rewards/{name}/mean"] = _column(records, f"rewards/{name}").mean()
        metrics = {name: float(value) for name, value in metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluation_records(self, dataset: Dataset) -> list[dict[str, Any]]:
        own = range(self.args.process_index, len(dataset), self.args.world_size)
        records: list[dict[str, Any]] = []
        for batch in Assignment([dataset[i] for i in own], list(own), 1).batches(self.args.rollout_batch_size):
            generators = image_generators(batch.seeds)
            sampled = self.policy.sample(batch.prompts, generators, denoiser=self.model_wrapped)
            records += image_records(0, batch, self.reward_suite.score(sampled.images, batch.image_rows, self.state))
        return records

    # ---- saving ----

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write diffusers' own files (called by `save_model` and for checkpoints)."""
        folder = Path(output_dir or self.args.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save(folder, self.policy.pipeline)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any = None) -> None:
        super()._save_checkpoint(model, trial)
        folder = self.args.folder / f"checkpoint-{self.state.global_step}"
        # Its rewards are in the tracker already, so a rollout that is still in use must be saved, not made again.
        in_use = self._rollout is not None and self._rollout.index == self._rollout_index
        state = DDPOState(self.tracker.state_dict(), self._rollout if in_use else None)
        state.save(folder, self.args.process_index)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        self.model.load(folder)
        state = DDPOState.load(folder, self.args.process_index)
        self.tracker.load_state_dict(state.tracker)
        self._rollout = state.rollout

    def _load_best_model(self) -> None:
        self.model.load(Path(str(self.state.best_model_checkpoint)))

    def _save_interrupted(self) -> None:
        """Save the state after the last whole update; what was accumulated for the next one is made again on resume."""
        if self.optimizer is None:  # nothing has begun
            return
        self.model_wrapped.zero_grad()
        self._save_checkpoint(self.model)
        logger.warning("Saved checkpoint-%d in %s.", self.state.global_step, self.args.output_dir)

    def _set_up_callbacks(self, args: DDPOConfig) -> None:
        if args.disable_tqdm:
            self.remove_callback(PrinterCallback)
        else:
            self.remove_callback(ProgressCallback)
            self.add_callback(RolloutProgress())
        if args.num_sample_images:
            self.add_callback(SampleCallback(self.policy, self.reward_suite, self.prompt_schedule.rows, args))
        else:
            self.add_callback(CurveCallback())


def _weights_dtype(args: DDPOConfig) -> torch.dtype:
    """Half precision for frozen weights under mixed precision; trained weights stay in float32."""
    if args.full_finetuning or not (args.bf16 or args.fp16):
        return torch.float32
    return torch.bfloat16 if args.bf16 else torch.float16


def _positions(batch: list[int]) -> dict[str, torch.Tensor]:
    return {"positions": torch.tensor(batch)}


def _column(records: Sequence[dict[str, Any]], name: str) -> Any:
    values = np.array([record[name] for record in records], np.float64)
    return values[~np.isnan(values)]


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the block takes."""
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
