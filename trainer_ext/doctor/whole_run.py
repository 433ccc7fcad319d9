"""What a whole run takes: how often it does each thing, counted from its options, times what each took when it was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .estimate import EstimateFacts
from .facts import GuidanceFacts, PipelineFacts
from .report import Report
from .training_facts import CostFacts

DEFAULT_BRANCHES = 2  #: rows of a step with the base's own guidance


@dataclass(frozen=True)
class Judging:
    """
    What rewards and detectors take for an image.

    Parameters:
        computing (`float`):
            Seconds of a processor, which sampling beside it lacks.
        waiting (`float`):
            Seconds in which they wait, as for a server: these pass while the next images are sampled.
    """

    computing: float = 0.0
    waiting: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it, where nothing is sampled beside it."""
        return self.computing + self.waiting


@dataclass(frozen=True)
class Batches:
    """
    Images that one process samples in batches, each of which is judged while the next is sampled.

    Parameters:
        images (`int`):
            Their number.
        size (`int`):
            Images of a batch.
        overlapping (`bool`):
            Whether they are judged while the next are sampled.
    """

    images: int
    size: int
    overlapping: bool = True

    def seconds(self, sampling: float, judging: Judging) -> float:
        """Return what they take, given the seconds to sample an image and to judge one."""
        if not self.images:
            return 0.0
        if not self.overlapping:
            return self.images * (sampling + judging.seconds)
        batches = math.ceil(self.images / self.size)
        each = self.images / batches
        beside = batches - 1  # batches that are sampled while another is judged
        waiting = beside * max(sampling, judging.waiting) + judging.waiting
        return each * (sampling + waiting + batches * judging.computing)


@dataclass(frozen=True)
class Counts:
    """
    How often a run does what takes time.

    Parameters:
        rollout ([`Batches`]), evaluation ([`Batches`]):
            The images of a rollout, and of an evaluation, of one process.
        rollouts, updates, evaluations, checkpoints (`int`):
            Their numbers.
        divergences (`int`):
            Images of an evaluation whose divergence from the model before training is measured.
        drawn (`int`), drawings (`int`):
            The fixed samples, and how often they are drawn.
        drawn_by_default (`int`):
            Images that are drawn with the base's own steps and guidance.
    """

    rollout: Batches
    evaluation: Batches
    rollouts: int
    updates: int
    evaluations: int
    checkpoints: int
    divergences: int
    drawn: int
    drawings: int
    drawn_by_default: int


@dataclass(frozen=True)
class Costs:
    """
    Seconds that things take.

    Parameters:
        image, step, default_image (`float`):
            Sampling an image, one denoising step of it, and an image with the base's own steps and guidance.
        training (`float`):
            All forward and backward passes of the training on a rollout.
        update (`float`):
            An update of the optimizer.
        rewards, judges ([`Judging`]):
            Judging an image of a rollout, and one of an evaluation, with its pictures on the disk.
        sheet (`float`):
            Drawing the fixed samples on a sheet.
        checkpoint (`float`):
            Writing a checkpoint.
    """

    image: float
    step: float
    default_image: float
    training: float
    update: float = 0.0
    rewards: Judging = Judging()
    judges: Judging = Judging()
    sheet: float = 0.0
    checkpoint: float = 0.0


def seconds_by_part(counts: Counts, costs: Costs) -> dict[str, float]:
    """Return the seconds of a run by part. At its end, before and after are on one sheet, and all moments on another."""
    drawn = counts.drawings * counts.drawn
    sheets = counts.drawings + 3 if drawn else 0
    evaluation = counts.evaluation.seconds(costs.image, costs.judges) + counts.divergences * costs.step
    return {
        "rollouts": counts.rollouts * counts.rollout.seconds(costs.image, costs.rewards),
        "training": counts.rollouts * costs.training + counts.updates * costs.update,
        "evaluations": counts.evaluations * evaluation,
        "pictures": drawn * (costs.image + costs.rewards.seconds)
        + counts.drawn_by_default * (costs.default_image + costs.rewards.seconds)
        + sheets * costs.sheet,
        "checkpoints": counts.checkpoints * costs.checkpoint,
    }


def costs_of(report: Report, num_inference_steps: int) -> Costs:
    """Return what was measured by the doctor, without rewards and what is written to the disk."""
    cost, per_rollout = report.one(CostFacts), report.one(EstimateFacts)
    steps = report.one(PipelineFacts).default_steps or num_inference_steps
    step = cost.sampling_seconds / num_inference_steps
    branches = DEFAULT_BRANCHES / report.one(GuidanceFacts).num_outputs
    return Costs(
        image=cost.sampling_seconds,
        step=step,
        default_image=steps * step * branches,
        training=per_rollout.training_seconds,
        update=cost.update_seconds,
    )
