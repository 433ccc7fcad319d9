"""Scores honest pictures and cheats by the same reward."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import ConfigError
from ..images import to_pil
from ..scoring.suite import RewardSuite
from ..types import FloatArray
from .cheats import ASKED_ON_GREY, CHEATS, OTHER, WRONG_ON_GREY, Case, Cheat
from .payments import Payment, largest_difference, payment
from .writing import asked_words, shared_words

HONEST = "the prompt's own picture"


@dataclass(frozen=True)
class Audit:
    """
    What a reward pays for honest pictures and for cheats.

    Parameters:
        honest (`np.ndarray` of shape `(N,)`, float64):
            Reward of each prompt's own picture; NaN where there is none.
        rewards (`Mapping[str, np.ndarray]` of shape `(N,)`, float64):
            Reward of each cheat, by its name; NaN for prompts that do not allow it. Cheats that none allows are left out.
        detections (`Mapping[str, Mapping[str, float]]`):
            Mean value of each detector, by detector and by picture: a cheat's name, or [`HONEST`]. Detectors that could judge
            none of the pictures, such as those that compare the images of a prompt, are left out.
        again, alone (`float`):
            Largest difference between rewards of the same pictures: scored a second time, and scored in batches of one.
        ignores_prompt (`bool`):
            Whether each picture has exactly the same reward under another prompt.
        sheet (`Mapping[str, Image]`):
            A picture of each cheat, for the first prompt that allows it.
    """

    honest: FloatArray
    rewards: Mapping[str, FloatArray]
    detections: Mapping[str, Mapping[str, float]]
    again: float
    alone: float
    ignores_prompt: bool
    sheet: Mapping[str, Image.Image]

    @property
    def payments(self) -> dict[str, Payment]:
        """What each cheat pays, by its name, the best first; those without a reward last."""
        paid = {name: payment(self.honest, values) for name, values in self.rewards.items()}
        return dict(sorted(paid.items(), key=lambda item: (item[1].n == 0, -np.nan_to_num(item[1].difference))))


def audit(
    suite: RewardSuite,
    images: torch.Tensor,
    rows: Sequence[Mapping[str, Any]],
    on_step: Callable[[], None] = lambda: None,
) -> Audit:
    """
    Find out what cheating pays.

    Args:
        suite ([`RewardSuite`]):
            The reward: the weighted sum on which a policy would be trained.
        images (`torch.Tensor` of shape `(N, H, W, 3)`, uint8):
            The pictures that the untrained model draws for N different prompts.
        rows (`Sequence[Mapping[str, Any]]` of length N):
            The dataset row of each, with its `prompt`.
        on_step (`Callable[[], None]`, *optional*):
            Called [`num_steps`] times.

    Raises:
        [`ConfigError`]: there are fewer than two prompts, or a prompt is there twice.
        [`RewardError`]: a reward or detector broke its contract.
    """
    prompts = [row["prompt"] for row in rows]
    if len(set(prompts)) < max(2, len(prompts)):
        raise ConfigError(
            f"An audit compares pictures of different prompts, and was given {len(prompts)}, of which {len(set(prompts))} "
            "are different. Give at least two prompts, each once."
        )
    cases = _cases(to_pil(images), prompts)
    honest = suite.score(images, rows)
    scored = {}
    for cheat in CHEATS:
        scored[cheat.name] = _Scored.of(cheat, cases, suite, rows)
        on_step()
    again = largest_difference(honest.total, suite.score(images, rows).total)
    on_step()
    single = [suite.score(images[i : i + 1], [row]).total for i, row in enumerate(rows)]
    on_step()
    drawn = {name: each for name, each in scored.items() if each.pictures}
    return Audit(
        honest=honest.total,
        rewards={name: each.rewards for name, each in drawn.items()},
        detections=_by_detector({HONEST: honest.detections} | {name: each.detections for name, each in drawn.items()}),
        again=again,
        alone=largest_difference(honest.total, np.concatenate(single)),
        ignores_prompt=_ignores_prompt(honest.total, {name: each.rewards for name, each in scored.items()}),
        sheet={HONEST: cases[0].own} | {name: each.pictures[0] for name, each in drawn.items()},
    )


def _ignores_prompt(honest: FloatArray, rewards: Mapping[str, FloatArray]) -> bool:
    """Compare pictures that were scored under two prompts: what is wrong for one prompt is right for the next."""
    pairs = ((rewards[OTHER], honest), (rewards[WRONG_ON_GREY], rewards[ASKED_ON_GREY]))
    return all(np.array_equal(wrong, np.roll(right, -1), equal_nan=True) for wrong, right in pairs)


def num_steps() -> int:
    """Return the number of steps of an audit, for a progress bar."""
    return len(CHEATS) + 2


def _cases(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[Case]:
    shared = shared_words(prompts)
    words = [asked_words(prompt, shared) for prompt in prompts]
    following = [(i + 1) % len(prompts) for i in range(len(prompts))]
    return [Case(pictures[i], pictures[j], words[i], words[j], seed=i) for i, j in enumerate(following)]


@dataclass(frozen=True)
class _Scored:
    """A cheat's pictures, and the reward of each prompt's `(N,)`, NaN where it cannot be drawn."""

    pictures: list[Image.Image]
    rewards: FloatArray
    detections: Mapping[str, FloatArray]

    @classmethod
    def of(cls, cheat: Cheat, cases: Sequence[Case], suite: RewardSuite, rows: Sequence[Mapping[str, Any]]) -> _Scored:
        drawn = [index for index, case in enumerate(cases) if cheat.can_draw(case)]
        rewards = np.full(len(cases), np.nan)
        if not drawn:
            return cls([], rewards, {})
        pictures = [cheat.draw(cases[index]) for index in drawn]
        images = torch.from_numpy(np.stack([np.array(picture) for picture in pictures]))
        scores = suite.score(images, [rows[index] for index in drawn])
        rewards[drawn] = scores.total
        return cls(pictures, rewards, scores.detections)


def _by_detector(detections: Mapping[str, Mapping[str, FloatArray]]) -> dict[str, dict[str, float]]:
    means = {
        name: {picture: _mean(values[name]) for picture, values in detections.items()} for name in detections[HONEST]
    }
    return {name: values for name, values in means.items() if not all(map(math.isnan, values.values()))}


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
