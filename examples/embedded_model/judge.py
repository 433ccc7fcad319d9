"""
The judges: small classifiers that say which animal or object a picture shows, and what it does.

One of them is shown pictures only. The other, as large models are, is shown writing besides, and takes the word for the thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate
from transformers import ResNetConfig, ResNetForImageClassification

from .data import batch, pixels, read
from .deadline import Deadline
from .hardware import autocast, device, generator
from .loop import Plan, Trainer
from .words import ACTIVITIES, NOTHING, SUBJECTS

SEED, SECOND_SEED = 5, 9
IDLE = "no activity"
LABELS = (*SUBJECTS, IDLE, *ACTIVITIES)  #: two groups of classes in one vector of logits
READING_LABELS = (*SUBJECTS, NOTHING, IDLE, *ACTIVITIES)  #: of the judge that reads
#: What [`pixels`] does, for those who load the judge with transformers alone.
PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 64, "width": 64},
    "resample": 2,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def make_judge(labels: Sequence[str]) -> ResNetForImageClassification:
    """Return an untrained ResNet for pictures of 64 x 64 pixels."""
    config = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 96, 160],
        depths=[1, 2, 2, 2],
        layer_type="basic",
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    return ResNetForImageClassification(config)


def logits(judge: ResNetForImageClassification, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of subjects (B, 135 or 136) and activities (B, 9) of images (B, 3, 64, 64) in [-1, 1]."""
    subjects, activities = judge(images).logits.float().tensor_split([judge.config.label2id[IDLE]], 1)
    return subjects, activities


def spoil(images: Tensor, rng: torch.Generator) -> Tensor:
    """Blur, shade and make noisy, each image by its own amount: a generator's pictures are not as clean as scenes."""

    def amount() -> Tensor:
        return torch.rand(len(images), 1, 1, 1, generator=rng, device=images.device)

    blurred = interpolate(avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    images = torch.lerp(images, blurred, amount())
    noise = torch.randn(images.shape, generator=rng, device=images.device)
    return images * (0.8 + 0.4 * amount()) + 0.4 * (amount() - 0.5) + 0.25 * amount() * noise


def step_loss(
    judge: ResNetForImageClassification, images: Tensor, subjects: Tensor, activities: Tensor, plan: Plan, seed: int
) -> Callable[[int], Tensor]:
    """Return the loss, cross-entropy of subjects plus that of activities, as a function of the step."""

    def loss(step: int) -> Tensor:
        rows = batch(len(images), plan.batch_size, seed, step)
        spoilt = spoil(pixels(images[rows]), generator(seed + 1, step))
        with autocast():
            subject_logits, activity_logits = logits(judge, spoilt)
        return cross_entropy(subject_logits, subjects[rows], label_smoothing=0.05) + cross_entropy(
            activity_logits, activities[rows]
        )

    return loss


def train(
    shards: Sequence[Path], labels: Sequence[str], folder: Path, plan: Plan, deadline: Deadline, seed: int = SEED
) -> None:
    """Train a judge and write it, in half precision, to a folder that `from_pretrained` reads."""
    torch.manual_seed(seed)
    judge = make_judge(labels)
    trainer = Trainer(judge, plan, folder.with_suffix(".checkpoint.safetensors"))
    images, subjects, activities = (read(shards, name) for name in ("images", "subjects", "activities"))
    trained = trainer.train(step_loss(judge, images, subjects, activities, plan, seed), deadline)
    trained.half().save_pretrained(folder)
    write_preprocessor(folder)


def write_preprocessor(folder: Path) -> None:
    """Write how pictures become inputs."""
    text = json.dumps(PREPROCESSOR, indent=2) + "\n"
    folder.joinpath("preprocessor_config.json").write_text(text, encoding="utf-8")


def load(folder: Path) -> ResNetForImageClassification:
    """Read what [`train`] wrote."""
    judge = ResNetForImageClassification.from_pretrained(folder, dtype=torch.float32)
    return judge.eval().to(device(), memory_format=torch.channels_last)


@torch.inference_mode()
def classify(judge: ResNetForImageClassification, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the subjects (B,) and activities (B,) that the judge sees in uint8 images (B, 3, 64, 64)."""
    parts = [logits(judge, pixels(part.to(device()))) for part in images.split(256)]
    subjects, activities = zip(*parts, strict=True)
    return torch.cat(subjects).argmax(1).cpu(), torch.cat(activities).argmax(1).cpu()


def accuracy(judge: ResNetForImageClassification, shards: Sequence[Path]) -> dict[str, float]:
    """Return the shares of real scenes whose subject, activity and both the judge gets right."""
    images, subjects, activities = (read(shards, name) for name in ("images", "subjects", "activities"))
    seen_subjects, seen_activities = classify(judge, images)
    right = {"subject": seen_subjects == subjects.cpu(), "activity": seen_activities == activities.cpu()}
    right["both"] = right["subject"] & right["activity"]
    return {name: value.float().mean().item() for name, value in right.items()}
