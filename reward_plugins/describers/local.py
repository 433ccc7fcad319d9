"""A vision-language model of transformers, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, final

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from ddpo_plugins import RewardError

from .interface import NUM_LIKELIEST, Question, is_word

Reply = TypeVar("Reply")


@final
class LocalDescriber:
    """
    Any image-text-to-text model with a chat template: LLaVA, Qwen-VL, SmolVLM and others.

    Args:
        model (`str`):
            Hub id or folder.
        revision (`str`, *optional*):
            Commit, tag or branch on the Hub.
        device (`torch.device` or `str`):
            Where it runs.
        dtype (`str`):
            Precision of its weights; `"auto"` for the precision of its files.
        batch_size (`int`):
            Questions in one forward pass.
    """

    def __init__(self, model: str, revision: str | None, device: torch.device | str, dtype: str, batch_size: int):
        self.name = model
        self.batch_size = batch_size
        self.processor = AutoProcessor.from_pretrained(model, revision=revision)
        self.tokenizer = self.processor.tokenizer
        self.tokenizer.padding_side = "left"  # replies continue from the end of a question
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        weights: Any = AutoModelForImageTextToText.from_pretrained(model, revision=revision, dtype=dtype)
        self.model = weights.to(device).eval()
        # In a thread, so that other rewards' servers can answer meanwhile; only one, so that batches do not share the memory.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="describer")
        self._token_ids: dict[str, list[int]] = {}

    async def answer(self, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
        """Reply to each question."""
        return await self._batched(partial(self._answer, max_new_tokens=max_new_tokens), questions)

    async def first_word(self, questions: Sequence[Question], words: Sequence[str]) -> list[list[float]]:
        """Return how likely each word is as the first token of the reply."""
        return await self._batched(partial(self._first_word, words=words), questions)

    async def _batched(
        self, reply: Callable[[Sequence[Question]], list[Reply]], questions: Sequence[Question]
    ) -> list[Reply]:
        def replies() -> list[Reply]:
            batches = (questions[i : i + self.batch_size] for i in range(0, len(questions), self.batch_size))
            return [one for batch in batches for one in reply(batch)]

        return await asyncio.get_running_loop().run_in_executor(self._thread, replies)

    def _answer(self, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
        inputs = self._inputs(questions)
        sequences = self._generate(inputs, max_new_tokens).sequences[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(sequences, skip_special_tokens=True)]

    def _first_word(self, questions: Sequence[Question], words: Sequence[str]) -> list[list[float]]:
        token_ids = [self._tokens_of(word) for word in words]
        logits = self._generate(self._inputs(questions), max_new_tokens=1).logits[0]
        probabilities = logits.float().softmax(dim=-1)  # (Q, vocabulary)
        likeliest = probabilities.topk(min(NUM_LIKELIEST, probabilities.shape[-1])).indices
        asked = torch.tensor([index for ids in token_ids for index in ids], device=likeliest.device)
        among = torch.isin(likeliest, asked).any(dim=-1)  # (Q,)
        return torch.stack([probabilities[:, ids].sum(dim=-1) * among for ids in token_ids], dim=-1).tolist()

    @torch.inference_mode()
    def _generate(self, inputs: Any, max_new_tokens: int) -> Any:
        return self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,  # this and the next two override a model's own settings, which do not go with `do_sample=False`
            top_p=None,
            top_k=None,
            return_dict_in_generate=True,
            output_logits=True,
        )

    def _inputs(self, questions: Sequence[Question]) -> Any:
        chats = [
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}]
            for question in questions
        ]
        texts = self.processor.apply_chat_template(chats, add_generation_prompt=True)
        bos = self.tokenizer.bos_token
        inputs = self.processor(
            text=texts,
            images=[[question.image] for question in questions],
            padding=True,
            add_special_tokens=bos is None or not texts[0].startswith(bos),  # some templates write it themselves
            return_tensors="pt",
        )
        return inputs.to(self.model.device, dtype=self.model.dtype)

    def _tokens_of(self, word: str) -> list[int]:
        """Return the ids of all tokens that are the word."""
        if word not in self._token_ids:
            tokens = self.tokenizer.batch_decode([[index] for index in range(len(self.tokenizer))])
            self._token_ids[word] = [index for index, token in enumerate(tokens) if is_word(token, word)]
        if not self._token_ids[word]:
            raise RewardError(
                f"The tokenizer of {self.name!r} has no token {word!r}, so it cannot say how likely that answer is. Use another "
                "model."
            )
        return self._token_ids[word]
