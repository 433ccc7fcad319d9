"""What a reproduction will take on this machine, measured on one of its batches."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...doctor.estimate import EstimateFacts
from ...doctor.facts import GuidanceFacts, PipelineFacts
from ...doctor.report import Report
from ...doctor.training_facts import AdapterFacts, CostFacts, ReplayFacts
from ...errors import PipelineError
from ..evaluations.cost import num_evaluated_images, num_evaluations
from ..options import RunOptions
from ..screens.setting import num_updates

if TYPE_CHECKING:
    from ...config import DDPOConfig
    from ..train import Training

ADAM = 12  #: bytes of a checkpoint for each trained parameter


@dataclass(frozen=True)
class Measured:
    """
    What was measured before a run.

    Parameters:
        estimate ([`EstimateFacts`]):
            The doctor's estimate.
        trained_parameters (`int`):
            Number of trained parameters.
        image_seconds (`float`):
            What an image takes to sample.
        default_image_seconds (`float`):
            What an image takes with the base's own steps and guidance.
        peak_bytes (`int`):
            The device's memory at most while it was measured, or the process's for a CPU, with its libraries.
        replay_error (`float`):
            Largest |ratio - 1| of a step that was replayed as it was sampled.
    """

    estimate: EstimateFacts
    trained_parameters: int
    image_seconds: float
    default_image_seconds: float
    peak_bytes: int
    replay_error: float

    @property
    def rollout_seconds(self) -> float:
        """What a rollout takes, with the training on it, and without rewards."""
        return self.estimate.sampling_seconds + self.estimate.training_seconds

    def seconds(self, options: RunOptions, config: DDPOConfig, rollouts: int) -> float:
        """Return what a run of some rollouts takes, with training, evaluations and pictures, and without rewards."""
        evaluated = num_evaluated_images(options, config) * num_evaluations(
            config, rollouts * config.updates_per_rollout
        )
        drawn = config.num_sample_images * _num_drawings(config, rollouts)
        by_default = 2 * config.num_sample_images * config.sample_defaults  # without the adapter, and with it
        pictures = (evaluated + drawn) * self.image_seconds + by_default * self.default_image_seconds
        return rollouts * self.rollout_seconds + pictures

    def training_bytes(self, config: DDPOConfig) -> int:
        """Return what training takes on the device: as was measured, or more, if the optimizer's state is what counts."""
        checkpointed = self.estimate.checkpointed_bytes if config.recomputes_activations else None
        return max(self.estimate.training_bytes if checkpointed is None else checkpointed, self.peak_bytes)

    def disk_bytes(self, config: DDPOConfig) -> int:
        """Return what checkpoints take, each with the rollout that is trained on."""
        updates, every = num_updates(config), config.save_steps
        saved = -(-updates // max(1, round(updates * every) if every < 1 else round(every)))
        kept = saved if config.save_total_limit is None else min(saved, config.save_total_limit)
        return kept * (self.trained_parameters * ADAM + self.estimate.rollout_bytes)


def _num_drawings(config: DDPOConfig, rollouts: int) -> int:
    """Return how often the fixed samples are drawn: before training, every few rollouts, and after it."""
    return 2 + ((rollouts - 1) // config.sample_every if config.sample_every else 0)


def _default_share(report: Report, num_inference_steps: int) -> float:
    """Return the rows of an image by the pipeline's own steps, with two branches of guidance, relative to those of a run."""
    steps = report.one(PipelineFacts).default_steps or num_inference_steps
    return steps / num_inference_steps * 2 / report.one(GuidanceFacts).num_outputs


def measure(training: Training) -> Measured:
    """
    Sample and train one batch of a run.

    Raises:
        [`PipelineError`]: the pipeline cannot be trained.
    """
    from ...doctor.examine import examine
    from ...loop.progress.bars import StepBar
    from ...plugins import guidance_from_plugins
    from ..training.build import lora_config

    config = training.config
    print(f"measuring one batch of {config.rollout_batch_size} images", file=sys.stderr, flush=True)
    with StepBar(config.num_inference_steps, "one batch", not config.disable_tqdm) as bar:
        report = examine(
            training.options.model_name_or_path,
            config,
            lora_config(training.lora),
            guidance_from_plugins(),
            on_step=lambda step: bar.on_step(),
            as_run=True,
        )
    if report.refusal is not None:
        raise PipelineError(report.refusal)
    cost = report.one(CostFacts)
    return Measured(
        estimate=report.one(EstimateFacts),
        trained_parameters=report.one(AdapterFacts).num_parameters,
        image_seconds=cost.sampling_seconds,
        default_image_seconds=cost.sampling_seconds * _default_share(report, config.num_inference_steps),
        peak_bytes=cost.peak_bytes,
        replay_error=report.one(ReplayFacts).same_layout,
    )
