"""Rewards an image with the probability that a classifier gives to the right label."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any, final

from ddpo_plugins import Reward, RewardSpec

from .vision import batches, load_image_processor, naming

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import BaseImageProcessor, PreTrainedModel


def classifier(
    device: torch.device | str,
    model: str = "google/vit-base-patch16-224",
    revision: str = "3f49326eb077187dfe1c2a2bb15fbd74e6ab91e3",
    label: str = "{prompt}",
    batch_size: int = 32,
) -> Reward:
    """
    Build the reward: the probability of a label, in [0, 1].

    Args:
        device (`torch.device` or `str`):
            Device for the model.
        model (`str`):
            Hub id or folder of any image classifier of `transformers`. By default ViT-B/16 for the 1000 classes of
            ImageNet, the animals among which are the prompts of `imagenet_animals`.
        revision (`str`):
            Its commit on the Hub.
        label (`str`):
            The label, or a pattern of dataset columns: `"{prompt}"`, `"{animal}"` or any other.
        batch_size (`int`):
            Images classified at once.

    Raises:
        `OSError`: the model is not there.
        `ValueError`: it has no such label, or only one.
    """
    loaded = load_classifier(model, revision, device)
    names = [name for _, name, _, _ in Formatter().parse(label) if name is not None]
    if not names:
        loaded.classes(label)

    def score(images: list[Image.Image], prompts: list[str], **columns: Any) -> list[float]:
        wanted = [loaded.classes(text) for text in _fill(label, names, {**columns, "prompt": prompts}, len(images))]
        rows = [row for batch in batches(images, batch_size) for row in loaded.probabilities(batch)]
        return [sum(row[index] for index in indices) for row, indices in zip(rows, wanted, strict=True)]

    return score


@final
@dataclass(frozen=True)
class Classifier:
    """
    An image classifier with its image processor.

    Parameters:
        model (`PreTrainedModel`):
            The classifier, in float32, for inference.
        image_processor (`BaseImageProcessor`):
            Resizes and normalises.
        names (`Mapping[str, Sequence[int]]`):
            The classes that each name stands for; names in lower case.
        activation (`Callable[[Tensor], Tensor]`):
            Turns logits `(B, C)` into probabilities.
    """

    model: PreTrainedModel
    image_processor: BaseImageProcessor
    names: Mapping[str, Sequence[int]]
    activation: Callable[[torch.Tensor], torch.Tensor]

    def classes(self, label: str) -> Sequence[int]:
        """
        Return the classes that have this name: two for ImageNet's "crane", a bird and a machine.

        Raises:
            `ValueError`: no class has it.
        """
        found = classes_of(self.names, label)
        if found:
            return found
        near = " or ".join(map(repr, difflib.get_close_matches(label.lower(), self.names)))
        raise ValueError(
            f"{self.model.config.name_or_path!r} has no label {label!r} among its {self.model.config.num_labels}"
            f"{f'; near ones: {near}' if near else ''}. Set the option `label` to one, or to '{{column}}'."
        )

    def probabilities(self, images: Sequence[Image.Image]) -> list[list[float]]:
        """Return the probability of each class in each image, B lists of C, without gradients."""
        import torch

        with torch.inference_mode():
            logits = self.model(pixel_values=self._pixels(images)).logits
        return self.activation(logits).tolist()

    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return what the last layer of a ResNet is given, `(B, F)`, without gradients."""
        import torch

        with torch.inference_mode():
            return self.model.base_model(pixel_values=self._pixels(images)).pooler_output.flatten(1)

    def _pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        pixels = self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.device)


def load_classifier(model: str, revision: str, device: torch.device | str) -> Classifier:
    """
    Load an image classifier in float32.

    Raises:
        `OSError`: the model is not there.
        `ValueError`: it has one class, whose probability is always 1.
    """
    import torch
    from transformers import AutoModelForImageClassification

    with naming(model, revision):
        loaded = AutoModelForImageClassification.from_pretrained(model, revision=revision, dtype=torch.float32)
    config = loaded.config
    if config.num_labels < 2:
        raise ValueError(
            f"{model!r} has one output, so there is no label to choose. Use a classifier of two classes or more."
        )
    several = config.problem_type == "multi_label_classification"
    return Classifier(
        loaded.to(device).eval(),
        load_image_processor(model, revision),
        class_names(config.id2label),
        torch.sigmoid if several else lambda logits: logits.softmax(dim=-1),
    )


def class_names(labels: Mapping[int, str]) -> dict[str, list[int]]:
    """
    Return the classes of each name, in lower case.

    A label may list synonyms, the usual one first: "ruffed grouse, partridge, Bonasa umbellus". Names are looked up among
    labels, then among first names, then among synonyms: "partridge" is the name of a different class.
    """
    by_rank: list[dict[str, list[int]]] = [defaultdict(list), defaultdict(list), defaultdict(list)]
    for index, label in labels.items():
        first, *others = label.split(",")
        for rank, names in enumerate((others, [first], [label])):
            for name in names:
                by_rank[rank][name.strip().lower()].append(index)
    return {name: indices for rank in by_rank for name, indices in rank.items()}


def classes_of(names: Mapping[str, Sequence[int]], label: str) -> Sequence[int]:
    """
    Return the classes of a label, or none. One that lists synonyms ("tench, Tinca tinca"), and is not known as a whole, stands
    for its first name.
    """
    return names.get(label.strip().lower()) or names.get(label.partition(",")[0].strip().lower()) or ()


def _fill(label: str, names: Sequence[str], columns: Mapping[str, Any], count: int) -> list[str]:
    missing = [name for name in names if name not in columns]
    if missing:
        known = ", ".join(name for name, values in columns.items() if isinstance(values, list))
        raise ValueError(f"The label {label!r} needs the column {missing[0]!r}; the dataset has {known}.")
    return [label.format(**{name: columns[name][image] for name in names}) for image in range(count)]


REWARDS = (
    RewardSpec(
        "classifier", classifier, "Probability in [0, 1] that an image classifier gives the label of the prompt."
    ),
)
