"""
The rewards, detectors and prompt sets that ship with this project, offered like those of any other plugin.

Nobody imports this package: it is found through its entry point.
"""

from __future__ import annotations

from ddpo_plugins import DetectorSpec, PromptSetSpec, RewardSpec, hookimpl

from . import (
    aesthetic,
    alignment,
    classifier,
    clip_scores,
    detectors,
    embedded_aesthetic,
    embedded_judge,
    jpeg,
    questions,
    reading_judge,
)
from .prompts import (
    animal_activities,
    animals,
    counting,
    everyday_objects,
    imagenet_animals,
    other_animals,
    unpictured_animals,
    unseen_activities,
    unseen_animals,
    unseen_combinations,
    unseen_counting,
)
from .servers import remote


@hookimpl
def ddpo_register_rewards() -> list[RewardSpec]:
    """Offer all rewards. Their models and packages are loaded when one is built."""
    return [
        *jpeg.REWARDS,
        *aesthetic.REWARDS,
        *clip_scores.REWARDS,
        *classifier.REWARDS,
        *embedded_judge.REWARDS,
        *reading_judge.REWARDS,
        *embedded_aesthetic.REWARDS,
        *alignment.REWARDS,
        *questions.REWARDS,
        *remote.REWARDS,
    ]


@hookimpl
def ddpo_register_detectors() -> list[DetectorSpec]:
    """Offer all detectors. Their models and packages are loaded when one is built."""
    return [*detectors.DETECTORS, *remote.DETECTORS]


@hookimpl
def ddpo_register_prompts() -> list[PromptSetSpec]:
    """Offer the prompts of the paper."""
    return [
        PromptSetSpec("animals", animals, '45 prompts "a(n) [animal]"; the paper\'s aesthetic task.'),
        PromptSetSpec("animal_activities", animal_activities, '135 prompts "a(n) [animal] [activity]".'),
        PromptSetSpec("imagenet_animals", imagenet_animals, "398 animal classes of ImageNet-1k, by name."),
        PromptSetSpec("counting", counting, '315 prompts "[two..eight] [plural animal]".'),
        PromptSetSpec("unseen_animals", unseen_animals, '38 other prompts "a(n) [animal]", to evaluate on.'),
        PromptSetSpec("everyday_objects", everyday_objects, '50 prompts "a(n) [object]", to evaluate on.'),
        PromptSetSpec(
            "unseen_activities", unseen_activities, '90 prompts "a(n) [animal] [activity]" of other activities.'
        ),
        PromptSetSpec(
            "unseen_counting", unseen_counting, '70 prompts "[two..eight] [plural animal]" of other animals.'
        ),
        PromptSetSpec(
            "other_animals", other_animals, '19 other prompts "a(n) [animal]" that the embedded model can draw.'
        ),
        PromptSetSpec(
            "unpictured_animals",
            unpictured_animals,
            '10 prompts "a(n) [animal]" whose animals the embedded model can write, but not draw.',
        ),
        PromptSetSpec(
            "unseen_combinations",
            unseen_combinations,
            '42 prompts "a(n) [animal] [activity]" that the embedded model was never trained on.',
        ),
    ]
