"""Evaluates held-out prompts with fixed seeds, also by rewards that are never trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset

from ..config import DDPOConfig
from ..loop.lockstep import Lockstep
from ..loop.progress import StepBar
from ..loop.rewind import preserved_rng
from ..loop.sharding import check_shares
from ..model.weights import RunWeights
from ..policy.pipeline import LogProbPipeline
from ..policy.seeds import image_generators
from ..rollouts.datasets import check_measured, check_prompts
from ..rollouts.schedule import SamplingPlan
from ..runs.folder import SINGLE_DATASET, RunFolder
from ..runs.measures import evaluation_figures
from ..runs.measures.formulas import measured_columns, same_images
from ..runs.records import Record, read_records, write_records
from ..scoring.judges import Judges
from .divergence import DivergenceMeter
from .judging import EvaluatedBatch, JudgedBatch, evaluation_records, judge
from .shares import Share


class Evaluator:
    """
    Samples held-out prompts with fixed seeds, scores and measures them, and records the evaluations of a training.

    Args:
        policy ([`LogProbPipeline`]):
            The policy to evaluate.
        judges ([`Judges`]):
            The rewards that are trained on, with detectors, and the held-out ones.
        weights ([`RunWeights`]):
            The weights to evaluate.
        lockstep ([`Lockstep`]):
            Keeps processes together when one of them fails.
        args ([`DDPOConfig`]):
            The run's options.
        eval_dataset (`datasets.Dataset` or `dict[str, Dataset]`, *optional*):
            The run's own evaluation prompts, whose evaluations are recorded and compared with the model before training.
    """

    def __init__(
        self,
        policy: LogProbPipeline,
        judges: Judges,
        weights: RunWeights,
        lockstep: Lockstep,
        args: DDPOConfig,
        eval_dataset: Dataset | Mapping[str, Dataset] | None = None,
    ):
        self.policy = policy
        self.judges = judges
        self.weights = weights
        self.lockstep = lockstep
        self.args = args
        self.folder = RunFolder(args.folder)
        self.meter = DivergenceMeter(policy, weights.denoiser, lockstep.accelerator)
        several = eval_dataset if isinstance(eval_dataset, dict) else {SINGLE_DATASET: eval_dataset}
        self.datasets = {name: dataset for name, dataset in several.items() if dataset is not None}
        self._bases: dict[str, Sequence[Record]] = {}

    def evaluate(
        self,
        model: torch.nn.Module,
        dataset: Any,
        prefix: str,
        trainer_state: Any,
        on_failure: Callable[[], None] | None = None,
    ) -> dict[str, float]:
        """
        Sample, score and measure the images of each row of `dataset`. The row's number is the seed of its first image. Every
        process must call this.

        Args:
            model (`torch.nn.Module`):
                The denoiser as the accelerator prepared it.
            dataset (`datasets.Dataset`):
                Rows with a `prompt`.
            prefix (`str`):
                Prefix of the names of metrics.
            trainer_state (`TrainerState`):
                Handed to the rewards.
            on_failure (`Callable[[], None]`, *optional*):
                Given in training, where records and pictures are written into the run's folder, if the dataset is the run's own:
                called where these cannot be made.

        Returns:
            `dict[str, float]`: [`evaluation_figures`] with the prefix.

        Raises:
            [`ConfigError`]: the dataset cannot be sampled.
            [`RewardError`]: a reward broke its contract.
        """
        rows = check_prompts(dataset, "eval_dataset")
        check_shares(self.lockstep.accelerator.distributed_type, len(rows), self.args.world_size)
        name = next((name for name, own in self.datasets.items() if own is dataset), None)
        updates = trainer_state.global_step
        if name is None:
            return self._metrics(self._records(model, rows, updates, trainer_state), None, prefix)
        if on_failure is None:
            records = self._records(model, rows, updates, trainer_state)
            return self._metrics(records, self._base(name, records), prefix)
        try:
            metrics = self._metrics(*self._recorded(name, model, rows, trainer_state), prefix)
            check_measured(
                self.args, [f"{prefix}_{each}" for each in self.judges.evaluated_metrics(self.args)], metrics
            )
        except Exception:
            on_failure()
            raise
        return metrics

    def _recorded(
        self, name: str, model: torch.nn.Module, rows: Dataset, trainer_state: Any
    ) -> tuple[Sequence[Record], Sequence[Record] | None]:
        """Evaluate and record a dataset of the run's own; return the records, and those from before training."""
        records = self._records(model, rows, trainer_state.global_step, trainer_state, name)
        if not trainer_state.global_step:
            self._bases[name] = records
        base = self._base(name, records)
        if base is None and self.weights.keeps_base:  # resumed in another folder, or with other prompts or rewards
            base = self._bases[name] = self._records(model, rows, 0, trainer_state, name, untrained=True)
        return records, base

    def _base(self, name: str, records: Sequence[Record]) -> Sequence[Record] | None:
        """Return the records of the same images, by the same judges, from before training, in every process; None without."""
        if name not in self._bases:
            file = self.folder.evaluation_file(name, 0)
            table = read_records(file) if self.args.process_index == 0 and file.is_file() else None
            (base,) = broadcast_object_list([None if table is None else table.to_pylist()])
            if base is None or not same_images(base, records):
                return None
            if self.weights.keeps_base and not measured_columns(records) <= measured_columns(base):
                return None
            self._bases[name] = base
        return self._bases[name]

    def forget(self) -> None:
        """Forget the evaluations of the model before training, which may be those of an earlier training."""
        self._bases.clear()

    def _records(
        self,
        model: torch.nn.Module,
        rows: Dataset,
        updates: int,
        trainer_state: Any,
        name: str | None = None,
        untrained: bool = False,
    ) -> Sequence[Record]:
        """Evaluate; return the records of all processes in the order of rows, and write them and pictures if there is a name."""
        moment = {"updates": updates, "rollouts": updates / self.args.updates_per_rollout}
        pictures = None if name is None else self.folder.evaluation_pictures(name, updates)
        weights = self.weights.untrained() if untrained else self.weights.evaluated()
        with self.weights.loan.in_use(), self.lockstep.guarded(), weights, preserved_rng():
            model.eval()
            own = evaluation_records(moment, self._judged(model, rows, trainer_state, pictures))
        records = sorted(gather_object(own), key=itemgetter("row"))
        if name is not None:
            with self.lockstep.guarded():
                if self.args.process_index == 0:
                    write_records(self.folder.evaluation_file(name, updates), records)
        return records

    def _judged(
        self, model: torch.nn.Module, rows: Dataset, trainer_state: Any, pictures: Path | None
    ) -> list[JudgedBatch]:
        """Sample this process's share of the images, and judge each batch while the next is sampled."""
        share = Share.of(len(rows), self.args)
        turns, done = self.meter.turns(share.sizes, share.process, trainer_state), 0
        batches = list(share.batches(self.args.rollout_batch_size))
        with self._bar(len(batches)) as bar, self.judges.scorer.overlapping(bar.on_wait) as scoring:
            for numbers in batches:
                own_rows, seeds = list(map(share.row, numbers)), list(map(share.seed, numbers))
                plan = SamplingPlan([rows[row] for row in own_rows], seeds, 1)  # read here: rows may hold images
                sampled = self.policy.sample(
                    plan.prompts, image_generators(plan.seeds), denoiser=model, on_step=lambda step: bar.on_step()
                )
                kl = self.meter.measure(sampled.trajectory, turns, done)
                done += len(kl)
                batch = EvaluatedBatch(numbers, own_rows, plan, sampled.images, kl)
                scoring.put(partial(judge, self.judges.suites, batch, trainer_state, pictures))
        return scoring.results

    def _bar(self, num_batches: int) -> StepBar:
        shown = not self.args.disable_tqdm and self.args.process_index == 0
        return StepBar(num_batches * self.policy.table.num_steps, "evaluation", shown)

    def _metrics(self, records: Sequence[Record], base: Sequence[Record] | None, prefix: str) -> dict[str, float]:
        figures = evaluation_figures(records, base, self.judges.held_out_columns)
        return {f"{prefix}_{name}": value for name, value in figures.items()}
