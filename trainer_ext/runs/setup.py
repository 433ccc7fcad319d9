"""`run.json`: the setup of a run, for readers of its results."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..config import DDPOConfig
from ..learning.algorithm import Algorithm
from ..options import DDPOOptions, TrainerDefaults
from ..scoring.functions import ImageFunction
from ..scoring.judges import Judges
from ..types import FloatArray
from .atomic import replacing
from .folder import RunFolder

logger = logging.getLogger(__name__)

PACKAGES = ("ddpo-plugins", "torch", "diffusers", "transformers", "peft", "accelerate", "datasets", "numpy", "pillow")
# Options that change no result, and weights, which are recorded with their rewards.
NOT_RECORDED = (
    "detector_weights",
    "disable_tqdm",
    "logging_strategy",
    "num_sample_images",
    "output_dir",
    "overlap_rewards",
    "report_to",
    "reward_timeout",
    "reward_weights",
    "sample_every",
    "save_steps",
    "save_total_limit",
    "stop_when",
)


@dataclass(frozen=True)
class RunSetup:
    """
    Everything that determines a run, except for its data. Two runs with the same prompts and setup do the same.

    Parameters:
        model (`str`):
            Hub id or folder, if the pipeline knows it; else empty.
        pipeline (`str`):
            Class of the pipeline.
        algorithm (`str`):
            The algorithm and its options.
        options (`Mapping[str, Any]`):
            Options of [`DDPOConfig`] that differ from the defaults, and the seed.
        rewards, detectors, eval_rewards (`Mapping[str, Mapping]`):
            [`Provenance`] of each by name, and the weight of those that are trained on.
        processes (`int`):
            Number of processes that train together.
        packages (`Mapping[str, str]`):
            Versions of the packages that affect results.
    """

    model: str
    pipeline: str
    algorithm: str
    options: Mapping[str, Any]
    rewards: Mapping[str, Mapping[str, Any]]
    detectors: Mapping[str, Mapping[str, Any]]
    eval_rewards: Mapping[str, Mapping[str, Any]]
    processes: int
    packages: Mapping[str, str]

    @classmethod
    def of(
        cls, args: DDPOConfig, model: str, pipeline: DiffusionPipeline, judges: Judges, algorithm: Algorithm[Any, Any]
    ) -> RunSetup:
        """Describe a run of `model`."""
        trained, held_out = judges.trained, judges.held_out
        return cls(
            model=model,
            pipeline=type(pipeline).__name__,
            algorithm=repr(algorithm),
            options=_changed_options(args),
            rewards=_described(trained.functions, trained.weights),
            detectors=_described(trained.detectors, trained.detector_weights),
            eval_rewards={} if held_out is None else _described(held_out.functions),
            processes=args.world_size,
            packages=_package_versions(),
        )


def _described(functions: Sequence[ImageFunction], weights: FloatArray | None = None) -> dict[str, dict[str, Any]]:
    """Return provenance and weight of functions, by name."""
    each = {function.name: function.provenance.as_dict() for function in functions}
    if weights is None:
        return each
    return {name: {**each[name], "weight": float(weight)} for name, weight in zip(each, weights, strict=True)}


def name_of(model: str | Path | DiffusionPipeline) -> str:
    """Return the Hub id or folder of a pipeline."""
    return str(model.config.get("_name_or_path", "") if isinstance(model, DiffusionPipeline) else model)


def _changed_options(args: DDPOConfig) -> dict[str, Any]:
    """Return the options of a run that are not the defaults, and its seed."""
    own = [item for kind in (DDPOOptions, TrainerDefaults) for item in dataclasses.fields(kind)]
    values = {item.name: getattr(args, item.name) for item in own if item.name not in NOT_RECORDED}
    defaults = {item.name: item.default for item in own}
    return {"seed": args.seed, **{name: value for name, value in values.items() if value != defaults[name]}}


def _package_versions() -> dict[str, str]:
    """Return the versions of the packages that affect results."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # some are built under another name
            continue
    return found


def write_setup(folder: RunFolder, setup: RunSetup, updates: int) -> None:
    """
    Record how the run continues after `updates` updates, if anything has changed.

    The file is an object with `runs`, a list: the setup that the run began with, then those it was resumed with, each with
    `from_update`. A run that starts from the beginning replaces the file.
    """
    runs = _earlier_setups(folder) if updates and folder.setup_file.is_file() else []
    entry = json.loads(json.dumps(dataclasses.asdict(setup), default=str))
    if runs and {**runs[-1], "from_update": 0} == {"from_update": 0, **entry}:
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


class SetupCallback(TrainerCallback):
    """
    Writes `run.json` when a run begins or is resumed.

    Args:
        setup ([`RunSetup`]):
            The setup of this process's run.
    """

    def __init__(self, setup: RunSetup):
        self.setup = setup

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the file."""
        if state.is_world_process_zero:
            write_setup(RunFolder(Path(str(args.output_dir))), self.setup, state.global_step)
