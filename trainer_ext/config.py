"""Arguments of a DDPO run."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames, trainer_log_levels

from ddpo_plugins.masking import masked, remember_secrets

from .errors import ConfigError
from .inherited import check_inherited, naming_refusals
from .learning.algorithm import Algorithm
from .learning.algorithms import ALGORITHMS, check_kind, resolve_algorithm
from .learning.regularisation.checks import check_regularisation
from .learning.weighting import AGGREGATIONS, BASELINES, WITHIN_GROUPS
from .loop.lockstep import join_process_group
from .loop.optimizer import check_schedule
from .loop.stopping import StopRule
from .loop.trackers import check_trackers
from .options import CHOICES as OF_OPTIONS
from .options import DDPOOptions, TrainerDefaults, default_of, parameters, parse_mapping
from .policy.runner import check_not_owned
from .policy.transitions.samplers import SamplerOptions
from .values import check_values

ENUMERATED: dict[str, type[Enum]] = {
    "eval_strategy": IntervalStrategy,
    "logging_strategy": IntervalStrategy,
    "save_strategy": SaveStrategy,
    "lr_scheduler_type": SchedulerType,
    "hub_strategy": HubStrategy,
    "optim": OptimizerNames,
}
CHOICES = {
    "algorithm": tuple(ALGORITHMS),
    "advantages": tuple(BASELINES),
    "multi_objective_aggregation": tuple(AGGREGATIONS),
    "log_level": tuple(trainer_log_levels),
    "log_level_replica": tuple(trainer_log_levels),
    **{name: tuple(member.value for member in kind) for name, kind in ENUMERATED.items()},
}


def _described(cls: type[DDPOConfig]) -> type[DDPOConfig]:
    """Add the options that `TrainingArguments` does not describe to the docstring, for `help()` and editors."""
    cls.__doc__ = f"{inspect.getdoc(cls)}\n\nParameters:\n{parameters(DDPOOptions, TrainerDefaults)}"
    return cls


@_described
@dataclass
class DDPOConfig(DDPOOptions, TrainerDefaults, TrainingArguments):
    """
    `transformers.TrainingArguments` with DDPO's own options, which [`DDPOOptions`] describes.

    An epoch is one rollout and the training on it, so `num_train_epochs` counts rollouts, and the strategies `"epoch"`
    of saving, logging and evaluation act once per rollout. Batch sizes count images, each with all its trained steps.

    Raises:
        [`ConfigError`]: a value that cannot work; the message says what can.
    """

    def __post_init__(self) -> None:
        remember_secrets({"hub_token": self.hub_token})
        check_values(self)
        check_inherited(self)
        left_out = [item.name for item in fields(self) if item.init and getattr(self, item.name) == default_of(item)]
        if isinstance(self.pipeline_kwargs, str):
            self.pipeline_kwargs = parse_mapping("pipeline_kwargs", self.pipeline_kwargs)
        check_not_owned(self.call_kwargs)
        self._check_values()
        check_trackers(self.report_to)
        if (self.load_best_model_at_end or self.save_strategy == "best") and self.metric_for_best_model is None:
            self.metric_for_best_model = "reward"  # else "loss", which no evaluation reports
        if self.use_cpu:
            join_process_group(self.ddp_backend, self.ddp_timeout_delta)
        with naming_refusals():
            super().__post_init__()
        check_schedule(self)
        self.output_dir = str(Path(str(self.output_dir)).absolute())  # where it is does not change with os.chdir
        if self.ddp_find_unused_parameters is None:
            # If false, DDP sorts its buckets by the first backward pass, which moves the parameters to other parts of them. Three
            # or more gradients are then added in another order, and a run that was resumed ends with other last digits.
            self.ddp_find_unused_parameters = self.world_size > 2
        if self.ddp_broadcast_buffers is None:
            self.ddp_broadcast_buffers = False
        self._defaults = {name: getattr(self, name) for name in left_out}
        self._check_batches()
        check_kind(ALGORITHMS[self.algorithm].kind, self)

    def __str__(self) -> str:
        """Return the options that are not the defaults. Of `TrainingArguments`, a hundred others have theirs."""
        if "_defaults" not in vars(self):
            return f"{type(self).__name__}(...)"  # its values are being checked
        own = ", ".join(f"{name}={value!r}" for name, value in self.changed.items())
        return f"{type(self).__name__}({own})"

    __repr__ = __str__

    @property
    def changed(self) -> dict[str, Any]:
        """The options that are not the defaults, as JSON holds them. `TrainingArguments` computes some of the defaults."""
        names = [item.name for item in fields(self) if item.init]
        names = [name for name in names if name not in self._defaults or getattr(self, name) != self._defaults[name]]
        values = super().to_dict()
        return dict(masked({name: values[name] for name in names}))

    def to_dict(self) -> dict[str, Any]:
        """Return the options without secrets: trackers and their files get them from here."""
        return dict(masked(super().to_dict()))

    @property
    def updates_per_rollout(self) -> int:
        """Optimizer updates between two rollouts."""
        images_per_update = self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size
        return self.num_inner_epochs * self.num_images_per_rollout // images_per_update

    @property
    def folder(self) -> Path:
        """The output folder, to which everything in a run is written."""
        return Path(str(self.output_dir))

    @property
    def call_kwargs(self) -> dict[str, Any]:
        """Additional arguments of the pipeline's calls, parsed."""
        return self.pipeline_kwargs if isinstance(self.pipeline_kwargs, dict) else {}

    @property
    def policy_kwargs(self) -> dict[str, Any]:
        """The arguments of [`LogProbPipeline`], without the pipeline and its guidance rule."""
        names = ("num_inference_steps", "guidance_scale", "eta", "sampler", "noise_level", "sde_window")
        return {**{name: getattr(self, name) for name in names}, "pipeline_kwargs": self.call_kwargs}

    @property
    def weights_dtype(self) -> torch.dtype:
        """Precision of the loaded weights: half for frozen ones under mixed precision; trained weights stay in float32."""
        if self.full_finetuning or not (self.bf16 or self.fp16):
            return torch.float32
        return torch.bfloat16 if self.bf16 else torch.float16

    @property
    def recomputes_activations(self) -> bool:
        """Whether activations are computed again in the backward pass, by either name that transformers has for it."""
        return any(vars(self).get(name) for name in ("activation_checkpointing", "gradient_checkpointing"))

    @property
    def images_per_process(self) -> int:
        """Images that each process samples in a rollout."""
        return self.num_images_per_rollout // self.world_size

    def _check_values(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}.")
        if self.quantization is not None and (
            self.full_finetuning or self.quantization not in OF_OPTIONS["quantization"]
        ):
            raise ConfigError(
                f"quantization is {self.quantization!r} and full_finetuning {self.full_finetuning}; it must be one of "
                f"{', '.join(OF_OPTIONS['quantization'])}, and needs an adapter: quantised weights cannot be trained themselves."
            )
        sampling = SamplerOptions(self.sampler, self.eta, self.noise_level, self.sde_window)
        sampling.check_window(self.num_inference_steps)
        if not 0 <= self.skip_last_steps < self.num_inference_steps:
            raise ConfigError(
                f"skip_last_steps is {self.skip_last_steps}; it must be from 0 to num_inference_steps - 1 = "
                f"{self.num_inference_steps - 1}, so that a step is left to train."
            )
        self._check_learning()
        self._check_judging()

    def resolve_algorithm(self, algorithm: str | Algorithm[Any, Any] | None) -> Algorithm[Any, Any]:
        """
        Return the algorithm of a name, or the given algorithm itself; for `None`, the one that the options name.

        Raises:
            [`ConfigError`]: there is no such algorithm, or it cannot run with these options.
        """
        chosen = resolve_algorithm(algorithm, self)
        check_kind(type(chosen), self)
        return chosen

    def _check_learning(self) -> None:
        if self.advantages in WITHIN_GROUPS and self.num_images_per_prompt < 2:
            raise ConfigError(
                f"advantages={self.advantages!r} compares the images of a prompt with each other, and num_images_per_prompt is "
                f"{self.num_images_per_prompt}; it must be at least 2."
            )
        check_regularisation(self)

    def _check_judging(self) -> None:
        if self.sample_defaults and (self.full_finetuning or not self.num_sample_images):
            raise ConfigError(
                "sample_defaults=True needs an adapter, which can be switched off, and num_sample_images above 0: "
                f"full_finetuning is {self.full_finetuning} and num_sample_images {self.num_sample_images}."
            )
        for rule in self.stop_when or ():
            StopRule.parse(rule)
        if self.reward_timeout is not None and not (self.reward_timeout > 0 and self.overlap_rewards):
            raise ConfigError(
                f"reward_timeout is {self.reward_timeout} and overlap_rewards {self.overlap_rewards}; a time-out must be greater "
                "than 0 seconds, and needs overlap_rewards=True: a call in the trainer's own thread cannot be abandoned."
            )

    def _check_batches(self) -> None:
        images, batch = self.num_images_per_rollout, self.per_device_train_batch_size
        update = batch * self.gradient_accumulation_steps * self.world_size
        if images % update:
            raise ConfigError(
                f"num_images_per_rollout={images} is not a multiple of the {update} images of an update "
                f"(per_device_train_batch_size={batch} x gradient_accumulation_steps={self.gradient_accumulation_steps} x "
                f"{self.world_size} process(es)). Use num_images_per_rollout={-(-images // update) * update}, or change one "
                "of the three."
            )
        if images % (self.num_images_per_prompt * self.world_size):
            raise ConfigError(
                f"num_images_per_rollout={images} is not a multiple of num_images_per_prompt={self.num_images_per_prompt} "
                f"x {self.world_size} process(es): a prompt's images are sampled by one process."
            )
        larger, smaller = sorted((self.rollout_batch_size, self.num_images_per_prompt), reverse=True)
        if larger % smaller:
            raise ConfigError(
                f"rollout_batch_size={self.rollout_batch_size} and num_images_per_prompt={self.num_images_per_prompt} do not "
                "divide: one must be a multiple of the other, so that batches hold whole prompts."
            )
