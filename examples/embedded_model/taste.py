"""
A taste: a linear head on the judge's features that prefers the art of one icon set to that of the other, as LAION's head on
CLIP's features prefers what its raters liked.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from transformers import ResNetForImageClassification

from . import art
from .captions import World
from .data import pixels
from .hardware import device, generator
from .judge import load, spoil
from .scenes import Painter

LIKED, OTHER = 1.0, 0.0  #: what the head says on average of a picture of the one set, and of the other
RIDGE = 100.0  #: penalty of the sum of squared weights
SEED, TEST_SEED = 7_000_000, 8_000_000  #: far from those of other scenes


def fit(art_file: Path, judge: Path, folder: Path, scenes: int) -> float:
    """
    Fit the head by ridge regression on `scenes` pictures of either set, and write it to `folder/model.safetensors`.

    Returns:
        `float`: the share of pairs of unseen pictures, one of each set, in which it prefers the right one (AUROC).
    """
    resnet, icons = load(judge), art.load(art_file)
    other, liked = (_features(resnet, icons, name, scenes, SEED) for name in art.GENERATOR_SETS)
    weight, bias = _regress(np.concatenate([other, liked]), np.repeat([OTHER, LIKED], scenes))
    folder.mkdir(parents=True, exist_ok=True)
    head = {"weight": torch.from_numpy(weight).float(), "bias": torch.tensor(bias, dtype=torch.float32)}
    save_file(head, folder / "model.safetensors")
    worse, better = (_features(resnet, icons, name, scenes, TEST_SEED) @ weight for name in art.GENERATOR_SETS)
    return float((better[:, None] > worse).mean())


@torch.inference_mode()
def _features(
    judge: ResNetForImageClassification, icons: art.Art, icon_set: str, scenes: int, seed: int
) -> NDArray[np.float64]:
    """Return what the judge sees, `(scenes, 160)`, in pictures of one set, blurred and shaded as when it was trained."""
    images = pixels(_draw(icons, icon_set, scenes, seed).to(device()))
    spoilt = spoil(images, generator(seed, 0)).split(256)
    return torch.cat([judge.resnet(part).pooler_output.flatten(1) for part in spoilt]).double().cpu().numpy()


def _draw(icons: art.Art, icon_set: str, scenes: int, seed: int) -> Tensor:
    """Draw scenes without companions, `(scenes, 3, 64, 64)` uint8; those of two sets with one seed show the same."""
    painter, world, images = Painter(art.only(icons, (icon_set,))), World(), []
    for number in range(scenes):
        rng = Random(seed + number)
        while (scene := world.describe(rng)).companion:
            pass
        images.append(np.asarray(painter.paint(scene, rng)))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _regress(features: NDArray[np.float64], targets: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return weights `(F,)` and bias of the ridge regression of targets `(N,)` on features `(N, F)`."""
    mean, middle = features.mean(0), targets.mean()
    centred = features - mean
    gram = centred.T @ centred + RIDGE * np.eye(features.shape[1])
    weight = np.linalg.solve(gram, centred.T @ (targets - middle))
    return weight, float(middle - mean @ weight)
