"""Whether an image shows its prompt, by the classifier that ships with the embedded model: alignment, offline."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpo_plugins import Reward, RewardSpec

from .classifier import Classifier, load_classifier
from .vision import batches

if TYPE_CHECKING:
    import torch
    from PIL import Image

IDLE = "no activity"  #: the first label of the second group
NOTHING = "nothing"  #: label for images without a subject; no prompt asks for it


def embedded_judge(device: torch.device | str, folder: str | None = None, batch_size: int = 128) -> Reward:
    """
    Build the reward: the probability, in [0, 1], that an image shows the prompt's subject, times that of its activity.

    Its mean over images is about the share of images that show their prompt. A prompt without an activity asks for none.

    Args:
        device (`torch.device` or `str`):
            Device for the model, a ResNet of 1.3 M parameters.
        folder (`str`, *optional*):
            Folder of another judge that the recipe of the embedded model made; by default the one that ships.
        batch_size (`int`):
            Images classified at once.
    """
    return shown_probability(shipped_judge() if folder is None else Path(folder), device, batch_size)


def shipped_judge(*parts: str) -> Path:
    """Return the folder of the judge that ships, or of one inside it."""
    return Path(str(files("reward_plugins"))).joinpath("judge", *parts)


def shown_probability(folder: Path, device: torch.device | str, batch_size: int) -> Callable[..., list[float]]:
    """
    Build the probability, in [0, 1], that an image shows the prompt's subject, times that of its activity.

    Args:
        folder (`Path`):
            Folder of the judge's weights.
        device (`torch.device` or `str`):
            Device for the model.
        batch_size (`int`):
            Images classified at once.
    """
    judge = load_judge(folder, device)
    labels = Labels.of(judge)

    def score(images: list[Image.Image], prompts: list[str], **columns: Any) -> list[float]:
        asked = [labels.asked(prompt) for prompt in prompts]
        rows = [row for batch in batches(images, batch_size) for row in judge.probabilities(batch)]
        return [row[subject] * row[activity] for row, (subject, activity) in zip(rows, asked, strict=True)]

    return score


def load_judge(folder: Path, device: torch.device | str) -> Classifier:
    """Load a judge: a classifier whose labels are subjects and then activities, each group with its own probabilities."""
    judge = load_classifier(str(folder), "main", device)
    (first,) = judge.names[IDLE]

    def activation(logits: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.cat([group.softmax(-1) for group in logits.tensor_split([first], -1)], -1)

    return replace(judge, activation=activation)


@dataclass(frozen=True)
class Labels:
    """
    The classes that a judge knows.

    Parameters:
        subjects (`Mapping[str, int]`):
            Class of each subject, such as "cat".
        activities (`Mapping[str, int]`):
            Class of each activity, such as "riding a bike".
        idle (`int`):
            The class of no activity.
    """

    subjects: Mapping[str, int]
    activities: Mapping[str, int]
    idle: int

    @classmethod
    def of(cls, judge: Classifier) -> Labels:
        """Read the labels of a judge."""
        classes = {name: number for name, (number,) in judge.names.items()}
        classes.pop(NOTHING, None)
        idle = classes.pop(IDLE)
        subjects = {name: number for name, number in classes.items() if number < idle}
        return cls(subjects, {name: number for name, number in classes.items() if number > idle}, idle)

    def asked(self, prompt: str) -> tuple[int, int]:
        """
        Return the classes of the subject and the activity that a prompt names: "a cat", "an ant riding a bike".

        Raises:
            `ValueError`: the judge does not know them.
        """
        pattern = rf"(?:an? )?({_either(self.subjects)})(?: ({_either(self.activities)}))?"
        if not (found := re.fullmatch(pattern, prompt.strip().lower())):
            raise ValueError(_unknown(prompt, list(self.subjects), list(self.activities)))
        return self.subjects[found[1]], self.activities[found[2]] if found[2] else self.idle


def _either(names: Iterable[str]) -> str:
    return "|".join(map(re.escape, names))


def _unknown(prompt: str, subjects: Sequence[str], activities: Sequence[str]) -> str:
    known = [f"{subject}{activity}" for subject in subjects for activity in ("", *(f" {name}" for name in activities))]
    bare = re.sub(r"^an? ", "", prompt.strip().lower())
    near = difflib.get_close_matches(bare, known)
    return (
        f"The embedded model's judge does not know what {prompt!r} asks for. It knows 'a(n) SUBJECT' and 'a(n) SUBJECT "
        f"ACTIVITY', with the {len(subjects)} subjects {', '.join(subjects[:3])}, ... {subjects[-1]} and the activities "
        f"{', '.join(activities)}{'; near: ' + ' or '.join(map(repr, near)) if near else ''}. Ask for these (the prompt sets "
        "`animals` and `animal_activities` do), or take another reward: `clip_score`, `prompt_alignment`."
    )


REWARDS = (
    RewardSpec(
        "embedded_judge",
        embedded_judge,
        "Probability in [0, 1] that an image of the embedded model shows the prompt's subject and activity; offline.",
    ),
)
