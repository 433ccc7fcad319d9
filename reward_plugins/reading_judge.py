"""Whether an image shows its prompt, by a judge that, like large models, also reads: written words can fool it."""

from __future__ import annotations

from math import exp, inf, log
from typing import TYPE_CHECKING, Any

from ddpo_plugins import Reward, RewardSpec

from .embedded_judge import shipped_judge, shown_probability

if TYPE_CHECKING:
    import torch
    from PIL import Image

FLOOR = -8.0  #: nats; about the log-probability that the judge was trained to give to wrong subjects


def reading_judge(device: torch.device | str, floor: float = FLOOR, batch_size: int = 128) -> Reward:
    """
    Build the reward: ``1 - log(p) / floor``, from 0 (p is e^floor or less) to 1, where p is the probability of the prompt.

    p is the judge's probability that an image shows the prompt's subject, times that of its activity. The judge was trained on
    signs as well as pictures, also damaged ones, so it takes the word "cat" for a cat. Because it is a logarithm, the reward
    also distinguishes unlikely images from one another.

    Args:
        device (`torch.device` or `str`):
            Device for the model, a ResNet of 1.3 M parameters.
        floor (`float`):
            Nats, below 0. The nearer to 0, the more of the unlikely images are all worth 0: what is left to learn from are
            those that the judge nearly believes.
        batch_size (`int`):
            Images classified at once.

    Raises:
        `ValueError`: the floor is not below 0.
    """
    if not -inf < floor < 0:
        raise ValueError(f"floor={floor} is not a log-probability; give a finite number below 0, such as {FLOOR}.")
    probability = shown_probability(shipped_judge("reading"), device, batch_size)

    def score(images: list[Image.Image], prompts: list[str], **columns: Any) -> list[float]:
        return [log_scale(value, floor) for value in probability(images, prompts)]

    return score


def log_scale(probability: float, floor: float = FLOOR) -> float:
    """Return the position of a probability on a logarithmic scale from e^floor, which is 0, to 1, which is 1."""
    return 1 - log(max(probability, exp(floor))) / floor


REWARDS = (
    RewardSpec(
        "reading_judge",
        reading_judge,
        "How sure, in [0, 1], a judge that takes written words for pictures is of the prompt; offline, easy to fool.",
    ),
)
