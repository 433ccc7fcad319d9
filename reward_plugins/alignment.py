"""Prompt alignment (Black et al. 2023, section 5.2): a vision-language model's description of an image, against its prompt."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from ddpo_plugins import LogExtra, RewardSpec, log_nothing

from .describers import DescriberOptions, Question, load_describer, with_describer_options
from .hub import DEBERTA, DEBERTA_REVISION

if TYPE_CHECKING:
    import torch
    from PIL import Image


@with_describer_options
def prompt_alignment(
    device: torch.device | str,
    options: DescriberOptions,
    *,
    question: str = "Answer concisely: what is going on in this image?",
    max_new_tokens: int = 64,
    reference: str = "The image contains {prompt}",
    similarity: str = DEBERTA,
    similarity_revision: str | None = DEBERTA_REVISION,
    similarity_layer: int | None = None,
) -> Callable[..., Coroutine[Any, Any, list[float | None]]]:
    """
    Build the reward: BERTScore's recall of the description against the prompt.

    Args:
        device (`torch.device` or `str`):
            Where the models run.
        options ([`DescriberOptions`]):
            The model to ask. Users give its fields as options of the reward.
        question (`str`, *optional*, defaults to `"Answer concisely: what is going on in this image?"`):
            The question that it is asked.
        max_new_tokens (`int`, *optional*, defaults to 64):
            Longest description, in tokens.
        reference (`str`, *optional*, defaults to `"The image contains {prompt}"`):
            The text that descriptions are compared with.
        similarity, similarity_revision, similarity_layer:
            The encoder, as in [`load_similarity`].

    Returns:
        The reward: recall, 1 for the reference's own words; `None` where a local model's description is empty.
    """
    from .similarity import load_similarity

    describer = load_describer(device, options)
    encoder = load_similarity(device, similarity, similarity_revision, similarity_layer)

    async def reward(
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        log_extra: LogExtra = log_nothing,
        **columns: Any,
    ) -> list[float | None]:
        descriptions = await describer.answer([Question(image, question) for image in images], max_new_tokens)
        references = [reference.replace("{prompt}", prompt) for prompt in prompts]
        matches = await encoder.compare(descriptions, references)
        log_extra("prompt_alignment/description", descriptions)
        log_extra("prompt_alignment/precision", [match.precision for match in matches])
        log_extra("prompt_alignment/f1", [match.f1 for match in matches])
        return [match.recall if text else None for text, match in zip(descriptions, matches, strict=True)]

    return reward


REWARDS = (
    RewardSpec(
        "prompt_alignment",
        prompt_alignment,
        "BERTScore recall of a vision-language model's description of the image against the prompt; at most 1.",
    ),
)
