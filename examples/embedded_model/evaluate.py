"""What the judge and the text detector say of a pipeline's samples, and sheets of them to look at."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from packaging.version import Version
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from transformers import ResNetForImageClassification

from . import reading
from .captions import Description
from .hardware import device
from .judge import classify
from .shards import activity_label
from .words import ACTIVITIES, ANIMALS, OBJECTS, OTHER_ANIMALS, SUBJECTS, HeldOut

SHEET_SEED = 2
# diffusers 0.40 renamed the argument and warns about the old name.
DTYPE_ARGUMENT = "dtype" if Version(diffusers.__version__) >= Version("0.40") else "torch_dtype"


@dataclass(frozen=True)
class Sampling:
    """
    How evaluation samples.

    Args:
        prompts_per_set (`int`): At most, evenly spread.
        images_per_prompt, images_per_sign (`int`): So many.
        num_inference_steps (`int`): Of DDIM.
        sheet_steps (`int`): The same, for pictures to look at.
        guidance_scales (`tuple[float, ...]`): One row of figures each.
        batch_size (`int`): Images at a time.
        eta (`float`): Of DDIM; 1.0 is what DDPO samples with.
    """

    prompts_per_set: int
    images_per_prompt: int
    images_per_sign: int
    num_inference_steps: int
    sheet_steps: int
    guidance_scales: tuple[float, ...]
    batch_size: int
    eta: float = 1.0


def load(folder: Path) -> StableDiffusionPipeline:
    """Load a pipeline folder in fp32."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, **{DTYPE_ARGUMENT: torch.float32}).to(device())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def prompt_sets(held_out: HeldOut) -> dict[str, list[Description]]:
    """Return what is asked of the pipeline, by name of the figure."""
    pairs = [(animal, activity) for animal in ANIMALS for activity in ACTIVITIES[:3]]
    return {
        "animals": [Description(animal) for animal in ANIMALS],
        "other animals": [Description(animal) for animal in OTHER_ANIMALS if animal not in held_out.animals],
        "objects": [Description(thing) for thing in OBJECTS if thing not in held_out.objects],
        "pairs seen": [Description(*pair) for pair in pairs if pair not in held_out.pairs],
        "pairs held out": [Description(*pair) for pair in pairs if pair in held_out.pairs],
        "animals held out": [Description(animal) for animal in sorted(held_out.animals)],
        "objects held out": [Description(thing) for thing in sorted(held_out.objects)],
    }


@torch.no_grad()
def sample(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], guidance_scale: float, sampling: Sampling, seed: int
) -> Tensor:
    """Return one image for each prompt: (B, 3, 64, 64) uint8."""
    images = pipeline(
        list(prompts),
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=guidance_scale,
        eta=sampling.eta,
        generator=torch.Generator(device()).manual_seed(seed),
        output_type="pt",
    ).images
    return images.mul(255).round().to(torch.uint8).cpu()


def judged_right(judge: ResNetForImageClassification) -> reading.Count:
    """Return what counts the images in which the judge sees the subject and the activity that were asked for."""

    def right(images: Tensor, scenes: Sequence[Description]) -> int:
        subjects, activities = classify(judge, images)
        return sum(
            SUBJECTS[subject] == scene.subject and activity == activity_label(scene.activity)
            for scene, subject, activity in zip(scenes, subjects.tolist(), activities.tolist(), strict=True)
        )

    return right


def share(
    pipeline: StableDiffusionPipeline,
    count: reading.Count,
    scenes: Sequence[Description],
    guidance_scale: float,
    sampling: Sampling,
) -> float:
    """Return the share of samples that count."""
    chosen = scenes[:: ceil(len(scenes) / sampling.prompts_per_set)]
    asked = [scene for scene in chosen for _ in range(sampling.images_per_prompt)]
    counted = 0
    for start in tqdm(range(0, len(asked), sampling.batch_size), leave=False, unit="batch"):
        part = asked[start : start + sampling.batch_size]
        images = sample(pipeline, [scene.caption for scene in part], guidance_scale, sampling, seed=1 + start)
        counted += count(images, part)
    return counted / len(asked)


def seconds_per_image(pipeline: StableDiffusionPipeline, guidance_scale: float, sampling: Sampling) -> float:
    """Return the time of a full batch, divided by its images."""
    prompts = ["a cat"] * sampling.batch_size
    sample(pipeline, prompts, guidance_scale, sampling, seed=0)  # the first one also pays for what is set up once
    start = time.perf_counter()
    sample(pipeline, prompts, guidance_scale, sampling, seed=0)
    return (time.perf_counter() - start) / len(prompts)


def evaluate(
    pipeline: StableDiffusionPipeline, judge: ResNetForImageClassification, folder: Path, sampling: Sampling
) -> Mapping[str, Mapping[str, float]]:
    """
    Write sheets of samples, and `figures.json`; return the figures.

    They are, for each guidance scale, the shares of each prompt set that are right or, where the text detector is
    installed, written, and the [`seconds_per_image`].
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    for guidance_scale in sampling.guidance_scales:
        _write_sheets(pipeline, folder, guidance_scale, sampling)
        row = _row(pipeline, judge, guidance_scale, sampling)
        figures[f"guidance {guidance_scale:g}"] = {name: round(value, 4) for name, value in row.items()}
        (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def _write_sheets(pipeline: StableDiffusionPipeline, folder: Path, guidance_scale: float, sampling: Sampling) -> None:
    sets, sampling = prompt_sets(HeldOut.read()), replace(sampling, num_inference_steps=sampling.sheet_steps)
    sheets = {
        "animals": (sets["animals"], 9),
        "activities": (sets["pairs seen"][::8][:12], 6),
        "writing": (reading.sheet_scenes(HeldOut.read()), 16),
    }
    for name, (scenes, columns) in sheets.items():
        images = sample(pipeline, [scene.caption for scene in scenes], guidance_scale, sampling, SHEET_SEED)
        sheet(images, columns).save(folder / f"{name}-guidance-{guidance_scale:g}.png")


def _row(
    pipeline: StableDiffusionPipeline,
    judge: ResNetForImageClassification,
    guidance_scale: float,
    sampling: Sampling,
) -> dict[str, float]:
    held_out, right, written = HeldOut.read(), judged_right(judge), reading.count_written()
    row = {
        name: share(pipeline, right, scenes, guidance_scale, sampling) for name, scenes in prompt_sets(held_out).items()
    }
    if written:
        fewer = replace(sampling, images_per_prompt=sampling.images_per_sign)
        for name, scenes in reading.prompt_sets(held_out).items():
            row[name] = share(pipeline, written, scenes, guidance_scale, fewer)
    row["seconds an image"] = seconds_per_image(pipeline, guidance_scale, sampling)
    return row


def sheet(images: Tensor, columns: int) -> Image.Image:
    """Return images (B, 3, 64, 64) uint8 as rows of one picture, at twice their size."""
    pixels = images.permute(0, 2, 3, 1).numpy()
    rows = [
        np.hstack(list(pixels[start : start + columns]))
        for start in range(0, len(pixels) // columns * columns, columns)
    ]
    picture = Image.fromarray(np.vstack(rows))
    return picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
