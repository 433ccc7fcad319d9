"""Where everything is after a training, and what to do next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...file_names import LORA_FILE, PEFT_FILE, PIPELINE_FILE
from ...runs.final_weights import WEIGHTS
from ...runs.folder import RunFolder
from ...runs.summary import RunSummary

RESUME = ("--resume_from_checkpoint", "--resume-from-checkpoint")


def result_lines(summary: RunSummary, pictures: bool) -> Iterator[str]:
    """Yield what was measured: rewards before and after, held-out rewards and detectors, and the verdict."""
    if summary.paired is not None:
        yield f"reward of the fixed samples: {summary.paired}"
    elif summary.first_rollout is not None:
        advice = "" if pictures else "; with --num_sample_images 16, fixed prompts and seeds are compared"
        first, last = summary.first_rollout, summary.last_rollout
        where = "only rollout" if last is None else f"first rollout and {last:.4g} in the last, of different prompts"
        yield f"mean reward {first:.4g} in the {where}{advice}"
    for name, figure in {**summary.held_out, **summary.detections}.items():
        yield f"{name} of the evaluation: {figure}"
    for dataset, figures in summary.generalisation.items():
        for name, figure in figures.items():
            yield f"{name} of {dataset}: {figure}"
    if summary.verdict is not None:
        yield str(summary.verdict)


def place_lines(folder: RunFolder, chosen: Path | None = None) -> Iterator[str]:
    """Yield the files of a run that are there, each with what it is for."""
    if chosen is not None:
        yield f"{chosen}   the weights to use"
    weights = (
        (PIPELINE_FILE, folder.path, "the pipeline, for DiffusionPipeline.from_pretrained"),
        (PEFT_FILE, folder.path, "the adapter, for PeftModel.from_pretrained"),
        (LORA_FILE, folder.path / LORA_FILE, "the adapter, for pipeline.load_lora_weights"),
    )
    saved = [f"{shown}   {purpose}" for name, shown, purpose in weights if (folder.path / name).is_file()]
    yield from saved[:1]
    pictures = {
        folder.comparison_file: "the same prompts and seeds, before and after",
        folder.strip_file: "through training",
        folder.curve_file: "the rewards through training",
    }
    yield from (f"{file}   {purpose}" for file, purpose in pictures.items() if file.is_file())


def next_lines(folder: RunFolder) -> Iterator[str]:
    """Yield the commands that one may want next, as far as they have what they need."""
    run = shlex.quote(_short(folder.path))
    if any(list(place.glob(name)) for place in folder.weights() for name in WEIGHTS):
        yield f"ddpo sample {run}   draw with the trained weights and without them"
        yield f"ddpo push {run}   take it to the Hub"
    if folder.setup_file.is_file():
        yield f"ddpo report {run}   all of it on one page"


def resuming(arguments: Sequence[str], command: str = "train") -> str:
    """Return the command that goes on with a run from its newest checkpoint."""
    from ddpo_plugins.masking import masked_command

    kept, words = [], iter(arguments)
    for word in words:
        name, _, value = word.partition("=")
        if name not in RESUME:
            kept.append(word)
        elif not value:
            next(words, None)
    return masked_command(["ddpo", command, *kept, RESUME[0], "true"])


def _short(path: Path) -> str:
    """Return a path as one would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
