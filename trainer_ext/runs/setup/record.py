"""`run.json`: the setup of a run, for readers of its results, and for those who repeat it."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets import Dataset
from diffusers import DiffusionPipeline

from ddpo_plugins.masking import masked, masked_text

from ...config import DDPOConfig
from ...learning.algorithm import Algorithm
from ...model.denoiser import TrainedDenoiser
from ...policy.pipeline import LogProbPipeline
from ...scoring.functions import ImageFunction
from ...scoring.judges import Judges
from ...types import FloatArray
from ..atomic import replacing
from ..folder import RunFolder
from .facts import (
    changed_options,
    current_launch,
    describe_base,
    describe_device,
    describe_eval_prompts,
    describe_prompts,
    package_versions,
)

logger = logging.getLogger(__name__)

OF_A_MOMENT = ("date", "command")  #: entries that say nothing about what a run does


@dataclass(frozen=True)
class RunSetup:
    """
    Everything that determines a run, and how to start it again. Two runs with the same setup do the same.

    Parameters:
        date (`str`):
            When the run began, in UTC.
        command (`str`):
            The command line of the process, without secrets.
        preset (`Sequence[str]`):
            Presets that set some of the options.
        model (`str`):
            Hub id or folder, if the pipeline knows it; else empty.
        pipeline (`str`):
            Class of the pipeline.
        sampler (`str`):
            The sampler of training: the one that was asked for, or that of the scheduler's family.
        base (`Mapping[str, Any]`):
            Precision, quantisation and fingerprint of the denoiser's weights that are not trained.
        adapter (`Mapping[str, Any]`, *optional*):
            Rank, layers and other options of the LoRA adapter; `None` where all weights are trained.
        prompts (`Mapping[str, Any]`):
            Name (if the command line gave one), number and fingerprint of the training prompts.
        eval_prompts (`Mapping[str, Mapping]`):
            The same of the prompts of each evaluation.
        algorithm (`str`):
            The algorithm and its options.
        options (`Mapping[str, Any]`):
            Options of [`DDPOConfig`] that affect results and differ from the defaults, and the seed.
        updates_per_rollout (`int`):
            Optimizer updates on each rollout.
        rewards, detectors, eval_rewards (`Mapping[str, Mapping]`):
            [`Provenance`] of each by name, and the weight of those that are trained on.
        processes (`int`):
            Number of processes that train together.
        device (`str`):
            The device of the main process.
        packages (`Mapping[str, str]`):
            Versions of the packages that affect results.
    """

    date: str
    command: str
    preset: Sequence[str]
    model: str
    pipeline: str
    sampler: str
    base: Mapping[str, Any]
    adapter: Mapping[str, Any] | None
    prompts: Mapping[str, Any]
    eval_prompts: Mapping[str, Mapping[str, Any]]
    algorithm: str
    options: Mapping[str, Any]
    updates_per_rollout: int
    rewards: Mapping[str, Mapping[str, Any]]
    detectors: Mapping[str, Mapping[str, Any]]
    eval_rewards: Mapping[str, Mapping[str, Any]]
    processes: int
    device: str
    packages: Mapping[str, str]

    @classmethod
    def of(
        cls,
        args: DDPOConfig,
        model: str,
        policy: LogProbPipeline,
        denoiser: TrainedDenoiser,
        judges: Judges,
        algorithm: Algorithm[Any, Any],
        train_dataset: Dataset,
        eval_dataset: Dataset | Mapping[str, Dataset] | None = None,
    ) -> RunSetup:
        """Describe the run that [`DDPOTrainer`] makes of its arguments."""
        trained, held_out, launch = judges.trained, judges.held_out, current_launch()
        return cls(
            date=_now(),
            command=launch.command,
            preset=launch.preset,
            model=masked_text(model),
            pipeline=type(policy.pipeline).__name__,
            sampler=policy.sampler,
            base=describe_base(denoiser),
            adapter=None if denoiser.peft_config is None else denoiser.lora_metadata(),
            prompts=describe_prompts(train_dataset, launch.prompts),
            eval_prompts=describe_eval_prompts(eval_dataset),
            algorithm=masked_text(repr(algorithm)),
            options=masked(changed_options(args)),
            updates_per_rollout=args.updates_per_rollout,
            rewards=_described(trained.functions, trained.weights),
            detectors=_described(trained.detectors, trained.detector_weights),
            eval_rewards={} if held_out is None else _described(held_out.functions),
            processes=args.world_size,
            device=describe_device(args.device),
            packages=package_versions(),
        )

    def begun(self, args: DDPOConfig) -> RunSetup:
        """Return the setup of a training that begins now: options may have been changed since the trainer was built."""
        changed = masked(changed_options(args))
        return dataclasses.replace(self, date=_now(), options=changed, updates_per_rollout=args.updates_per_rollout)

    @property
    def summary(self) -> str:
        """What determines the run, in one line."""
        adapter = "all weights" if self.adapter is None else f"LoRA of rank {self.adapter.get('r')}"
        functions = {"rewards": self.rewards, "detectors": self.detectors, "held-out rewards": self.eval_rewards}
        named = [f"{kind} {', '.join(each)}" for kind, each in functions.items() if each]
        model = f"{self.pipeline} {self.model}".strip()
        return "; ".join(
            [model, adapter, *named, f"{self.prompts['rows']} prompts", self.algorithm, f"on {self.device}"]
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the setup as JSON holds it."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self), default=str)))


def _described(functions: Sequence[ImageFunction], weights: FloatArray | None = None) -> dict[str, dict[str, Any]]:
    """Return provenance and weight of functions, by name."""
    each = {function.name: function.provenance.as_dict() for function in functions}
    if weights is None:
        return each
    return {name: {**each[name], "weight": float(weight)} for name, weight in zip(each, weights, strict=True)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def name_of(model: str | Path | DiffusionPipeline) -> str:
    """Return the Hub id or folder of a pipeline."""
    return str(model.config.get("_name_or_path", "") if isinstance(model, DiffusionPipeline) else model)


def _without_moment(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in (*OF_A_MOMENT, "from_update")}


def write_setup(folder: RunFolder, setup: RunSetup, updates: int, resumed: Mapping[str, Any] | None = None) -> None:
    """
    Record how the run continues after `updates` updates, if anything has changed.

    The file is an object with `runs`, a list: the setup that the run began with, then those it was resumed with, each with
    `from_update`. A run that starts from the beginning replaces the file. In another folder than before, the setup of the
    checkpoint that it is `resumed` from comes first if that trained on other rewards.
    """
    earlier = _earlier_setups(folder) if updates and folder.setup_file.is_file() else []
    runs = [run for run in earlier if run.get("from_update", 0) < updates]  # later ones are of a branch that ends here
    entry = setup.as_dict()
    if not runs and resumed is not None and resumed["rewards"] != entry["rewards"]:
        runs = [{"from_update": 0, **resumed}]
    if runs == earlier and runs and _without_moment(runs[-1]) == _without_moment(entry):
        return
    folder.path.mkdir(parents=True, exist_ok=True)
    with replacing(folder.setup_file) as place:
        place.write_text(json.dumps({"runs": [*runs, {"from_update": updates, **entry}]}, indent=2) + "\n")


def _earlier_setups(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the setups so far; none, with a warning, if the file cannot be read: a description must not stop a run."""
    try:
        return [dict(setup) for setup in folder.setups()]
    except (ValueError, KeyError, TypeError, OSError) as error:
        logger.warning(
            "%s cannot be read and is written again (%s: %s).", folder.setup_file, type(error).__name__, error
        )
        return []
