"""What a reproduction will take on this machine, measured on one of its batches."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...doctor.estimate import EstimateFacts
from ...doctor.report import Report
from ...doctor.training_facts import AdapterFacts, CostFacts, ReplayFacts
from ...doctor.whole_run import Costs, costs_of, seconds_by_part
from ...errors import PipelineError
from ..options import RunOptions
from ..screens.setting import num_updates
from ..training.counts import counts_of, num_checkpoints
from .judging import Jury, sheet_seconds, write_seconds

if TYPE_CHECKING:
    import torch

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
        costs ([`Costs`]):
            Seconds that things take.
        trained_parameters (`int`):
            Number of trained parameters.
        peak_bytes (`int`):
            The device's memory at most while it was measured, or the process's for a CPU, with its libraries.
        replay_error (`float`):
            Largest |ratio - 1| of a step that was replayed as it was sampled.
    """

    estimate: EstimateFacts
    costs: Costs
    trained_parameters: int
    peak_bytes: int
    replay_error: float

    def seconds(self, options: RunOptions, config: DDPOConfig, rollouts: int) -> float:
        """Return what a run of some rollouts takes."""
        return sum(self.seconds_by_part(options, config, rollouts).values())

    def seconds_by_part(self, options: RunOptions, config: DDPOConfig, rollouts: int) -> dict[str, float]:
        """Return the same by part; see [`seconds_by_part`]."""
        return seconds_by_part(counts_of(options, config, rollouts), self.costs)

    def training_bytes(self, config: DDPOConfig) -> int:
        """Return what training takes on the device: as was measured, or more, if the optimizer's state is what counts."""
        checkpointed = self.estimate.checkpointed_bytes if config.recomputes_activations else None
        return max(self.estimate.training_bytes if checkpointed is None else checkpointed, self.peak_bytes)

    @property
    def checkpoint_bytes(self) -> int:
        """What a checkpoint takes, with the rollout that is trained on."""
        return self.trained_parameters * ADAM + self.estimate.rollout_bytes

    def disk_bytes(self, config: DDPOConfig) -> int:
        """Return what the checkpoints that are kept take."""
        saved = num_checkpoints(config, num_updates(config))
        kept = saved if config.save_total_limit is None else min(saved, config.save_total_limit)
        return kept * self.checkpoint_bytes


def measure(training: Training) -> Measured:
    """
    Sample, judge and train one batch of a run, and draw its pictures.

    Raises:
        [`PipelineError`]: the pipeline cannot be trained.
        [`RewardError`], [`PluginError`]: a reward does not work.
    """
    from ...doctor.cost import peak_bytes
    from ..training.build import build_parts

    config = training.config
    print(f"measuring one batch of {config.rollout_batch_size} images", file=sys.stderr, flush=True)
    # Before the model, as the trainer will have them.
    jury = Jury.of(build_parts(training.options, config, training.preset), config)
    report, images = _examined(training)
    cost = report.one(CostFacts)
    found = Measured(
        estimate=report.one(EstimateFacts),
        costs=_costs(report, images, jury, config),
        trained_parameters=report.one(AdapterFacts).num_parameters,
        peak_bytes=max(cost.peak_bytes, peak_bytes(config.device)),
        replay_error=report.one(ReplayFacts).same_layout,
    )
    return replace(found, costs=replace(found.costs, checkpoint=write_seconds(config.folder, found.checkpoint_bytes)))


def _examined(training: Training) -> tuple[Report, torch.Tensor]:
    """Return the doctor's report, and the images that were sampled for it."""
    from ...doctor.examine import examine
    from ...loop.progress.bars import StepBar
    from ...plugins import guidance_from_plugins
    from ..training.build import lora_config

    config = training.config
    images: list[torch.Tensor] = []
    with StepBar(config.num_inference_steps, "one batch", not config.disable_tqdm) as bar:
        report = examine(
            training.options.model_name_or_path,
            config,
            lora_config(training.lora),
            guidance_from_plugins(),
            on_step=lambda step: bar.on_step(),
            as_run=True,
            on_images=images.append,
        )
    gc.collect()  # the model, whose adapter refers to it: the run loads its own, and there may not be room for two
    if report.refusal is not None:
        raise PipelineError(report.refusal)
    return report, images[0]


def _costs(report: Report, images: torch.Tensor, jury: Jury, config: DDPOConfig) -> Costs:
    return replace(
        costs_of(report, config.num_inference_steps),
        rewards=jury.rewards(images),
        judges=jury.evaluation(images),
        sheet=sheet_seconds(images, config.num_sample_images),
    )
