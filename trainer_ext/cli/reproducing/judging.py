"""What it takes to judge a run's images and to draw its pictures, measured on those of one batch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...doctor.whole_run import Judging

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from ...config import DDPOConfig
    from ...scoring.judges import Judges
    from ..training.build import Parts

WARM_UP = 2  #: images of a first call, which may load what later ones have


@dataclass(frozen=True)
class Jury:
    """
    The rewards and detectors of a run that is planned.

    Parameters:
        parts ([`Parts`]):
            The functions, and the prompts.
        config ([`DDPOConfig`]):
            The run's options.
        judges ([`Judges`]):
            What calls the functions.
    """

    parts: Parts
    config: DDPOConfig
    judges: Judges

    @classmethod
    def of(cls, parts: Parts, config: DDPOConfig) -> Jury:
        """Return that of a run's parts."""
        from ...scoring.judges import Judges

        return cls(parts, config, Judges.of(parts.rewards, parts.held_out, parts.detectors, config, config.device))

    def rewards(self, images: torch.Tensor) -> Judging:
        """Return what an image of a rollout takes."""
        from transformers import TrainerState

        def score(part: torch.Tensor) -> Any:
            rows = _rows(self.parts.prompts, len(part))
            return self.judges.trained.score(part, rows, TrainerState(), self.config.detector_every)

        return _measured(score, images)

    def evaluation(self, images: torch.Tensor) -> Judging:
        """Return what an image of an evaluation takes, with its pictures on the disk."""
        import numpy as np
        from transformers import TrainerState

        from ...monitoring.judging import EvaluatedBatch, judge
        from ...rollouts.schedule import SamplingPlan

        dataset = next(iter(self.parts.evaluated.values()), None)
        if dataset is None or self.config.eval_strategy == "no":
            return Judging()
        with _somewhere() as folder:

            def judged(part: torch.Tensor) -> Any:
                places = list(range(len(part)))
                plan = SamplingPlan(_rows(dataset, len(part)), places, 1)
                batch = EvaluatedBatch(places, places, plan, part, np.full(len(part), np.nan))
                return judge(self.judges.suites, batch, TrainerState(), Path(folder))

            return _measured(judged, images)


def sheet_seconds(images: torch.Tensor, number: int) -> float:
    """Return what it takes to draw some fixed samples and write them; images repeat where there are fewer."""
    import torch

    from ...runs.pictures.sheets import SampleSet

    if not number:
        return 0.0
    places = list(range(number))
    drawn = images[torch.arange(number) % len(images)]
    samples = SampleSet(["a prompt"] * number, places, drawn, [0.0] * number)
    with _somewhere() as folder:
        SampleSet(["a prompt"], [0], drawn[:1], [0.0]).save(Path(folder) / "first")  # loads what draws
        start = time.perf_counter()
        samples.save(Path(folder) / "sheet")
        return time.perf_counter() - start


def write_seconds(folder: Path, num_bytes: int) -> float:
    """Return what it takes to write a file on the disk of a folder, and to hash it."""
    import hashlib

    place = next(path for path in (folder, *folder.parents) if path.exists())
    content = bytes(1 << 24)
    with tempfile.TemporaryFile(dir=place) as file:
        start = time.perf_counter()
        file.write(content)
        file.flush()
        hashlib.sha256(content)
        seconds = time.perf_counter() - start
    return seconds / len(content) * num_bytes


def _measured(judge: Callable[[torch.Tensor], Any], images: torch.Tensor) -> Judging:
    judge(images[:WARM_UP])
    wall, computed = time.perf_counter(), time.process_time()
    judge(images)
    seconds, computing = time.perf_counter() - wall, time.process_time() - computed
    computing = min(seconds, computing)
    return Judging(computing / len(images), (seconds - computing) / len(images))


def _rows(dataset: Dataset, number: int) -> list[dict[str, Any]]:
    return [dict(row) for row in islice(cycle(dataset), number)]


def _somewhere() -> AbstractContextManager[str]:
    return tempfile.TemporaryDirectory(prefix="ddpo-measuring-")
