"""Rewards that ask a vision-language model about an image and look for a known answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from ddpo_plugins import LogExtra, PluginError, RewardError, RewardSpec, log_nothing

from .describers import DescriberOptions, Question, load_describer, with_describer_options
from .english import contains

if TYPE_CHECKING:
    import torch
    from PIL import Image


@with_describer_options
def counting(
    device: torch.device | str,
    options: DescriberOptions,
    *,
    max_new_tokens: int = 64,
) -> Callable[..., Coroutine[Any, Any, list[float | None]]]:
    """
    Build the reward of the article's counting prompts: the share of known answers that the model gives.

    Args:
        device (`torch.device` or `str`):
            Where a local model runs.
        options ([`DescriberOptions`]):
            The model to ask. Users give its fields as options of the reward.
        max_new_tokens (`int`, *optional*, defaults to 64):
            Longest reply, in tokens.

    Returns:
        The reward, in [0, 1]. It needs the columns `questions` and `answers`, each a list of texts for each prompt; answer i
        is looked for in the reply to question i, as whole words, where six is 6 and turtle is turtles. `None` where a
        local model's reply to one of the questions is empty.
    """
    describer = load_describer(device, options)

    async def reward(
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        questions: Sequence[Sequence[str]] | None = None,
        answers: Sequence[Sequence[str]] | None = None,
        log_extra: LogExtra = log_nothing,
        **columns: Any,
    ) -> list[float | None]:
        pairs = _paired(prompts, questions, answers)
        asked = [Question(image, text) for image, own in zip(images, pairs, strict=True) for text, _ in own]
        given = iter(await describer.answer(asked, max_new_tokens))
        replies = [[next(given) for _ in own] for own in pairs]
        log_extra("counting/replies", replies)
        return [_share(own, [answer for _, answer in pair]) for own, pair in zip(replies, pairs, strict=True)]

    return reward


def _paired(
    prompts: Sequence[str], questions: Sequence[Sequence[str]] | None, answers: Sequence[Sequence[str]] | None
) -> list[list[tuple[str, str]]]:
    if questions is None or answers is None:
        if not prompts:
            return []
        raise RewardError(
            "The reward 'counting' needs the columns `questions` and `answers`, which the dataset does not have. Use the prompt "
            "set 'counting', or give each prompt a list of questions and one answer to each."
        )
    for prompt, asked, known in zip(prompts, questions, answers, strict=True):
        if not asked or len(asked) != len(known):
            raise RewardError(
                f"The prompt {prompt!r} has {len(asked)} question(s) and {len(known)} answer(s); the reward 'counting' needs at "
                "least one question, and one answer to each."
            )
    return [list(zip(asked, known, strict=True)) for asked, known in zip(questions, answers, strict=True)]


def _share(replies: Sequence[str], answers: Sequence[str]) -> float | None:
    """Return the share of answers that their replies contain."""
    if not all(replies):
        return None
    return sum(contains(reply, answer) for reply, answer in zip(replies, answers, strict=True)) / len(answers)


@with_describer_options
def yes_probability(
    device: torch.device | str,
    options: DescriberOptions,
    *,
    question: str = 'Does this image show "{prompt}"? Answer yes or no.',
) -> Callable[..., Coroutine[Any, Any, list[float | None]]]:
    """
    Build the reward: the probability of yes among the answers yes and no (VQAScore, Lin et al. 2024, arXiv:2404.01291).

    Args:
        device (`torch.device` or `str`):
            Where a local model runs.
        options ([`DescriberOptions`]):
            The model to ask. Users give its fields as options of the reward.
        question (`str`, *optional*, defaults to `'Does this image show "{prompt}"? Answer yes or no.'`):
            The question that it is asked.

    Returns:
        The reward, P(yes) / (P(yes) + P(no)) of the reply's first token, each summed over ways to write it. `None` where
        neither is among the 20 likeliest tokens. The sum is logged as `yes_probability/answered`: near 0, the model does not
        answer the question, and the reward means little.

    Raises:
        [`PluginError`]: the question does not contain `{prompt}`.
    """
    if "{prompt}" not in question:
        raise PluginError(f"The question must contain {{prompt}}, where the prompt is inserted; got {question!r}.")
    describer = load_describer(device, options)

    async def reward(
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        log_extra: LogExtra = log_nothing,
        **columns: Any,
    ) -> list[float | None]:
        texts = [question.replace("{prompt}", prompt) for prompt in prompts]
        asked = [Question(image, text) for image, text in zip(images, texts, strict=True)]
        likely = await describer.first_word(asked, ("yes", "no"))
        log_extra("yes_probability/answered", [yes + no for yes, no in likely])
        return [yes / (yes + no) if yes + no else None for yes, no in likely]

    return reward


REWARDS = (
    RewardSpec(
        "counting",
        counting,
        "Share of the answers to questions about the prompt that a vision-language model gives; in [0, 1].",
    ),
    RewardSpec(
        "yes_probability",
        yes_probability,
        "Probability that a vision-language model says yes, not no, when asked whether the image shows the prompt; in [0, 1].",
    ),
)
