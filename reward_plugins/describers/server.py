"""A vision-language model on an OpenAI-compatible server: vLLM, SGLang and others."""

from __future__ import annotations

import asyncio
import base64
import math
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar, final

import openai

from ddpo_plugins import RewardError
from ddpo_plugins.masking import remember_secrets, without_secrets

from ..servers.waiting import all_or_none, delay
from .faults import RETRIED, BadReplyError, advice, retry_after, said
from .interface import NUM_LIKELIEST, Question, is_word

if TYPE_CHECKING:
    from openai.types.chat.chat_completion import Choice
    from PIL import Image

Reply = TypeVar("Reply")

KEY = "OPENAI_API_KEY"  #: in the environment


@final
class ServerDescriber:
    """
    Sends each question as a separate request. Nothing is kept between calls: every batch of questions opens and closes its
    own connections, so it can be used from any event loop.

    Args:
        base_url (`str`):
            Address of the server, for example `"http://localhost:8000/v1"`.
        model (`str`):
            The server's name for it.
        num_requests (`int`):
            Number of simultaneous requests.
        timeout (`float`):
            Seconds for one request, from connecting to the last byte of the answer.
        max_retries (`int`):
            How often a failed request is sent again.

    Raises:
        [`RewardError`]: the server does not answer, or does not have the model.
    """

    def __init__(self, base_url: str, model: str, num_requests: int, timeout: float, max_retries: int):
        self.base_url = base_url
        self.model = model
        self.num_requests = num_requests
        self.timeout = timeout
        self.max_retries = max_retries
        # In a separate thread: in a notebook, an event loop is already running in this one.
        with ThreadPoolExecutor(max_workers=1) as thread:
            names = thread.submit(asyncio.run, self._model_names()).result()
        if model not in names:
            raise RewardError(
                f"The server at {base_url} has no model {model!r}; it has {', '.join(map(repr, names)) or 'none'}. Pass one of "
                "these as `model`, or start the server with yours."
            )

    async def answer(self, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
        """Reply to each question."""
        return await self._ask_all(questions, {"max_tokens": max_new_tokens}, _text)

    async def first_word(self, questions: Sequence[Question], words: Sequence[str]) -> list[list[float]]:
        """Return how likely each word is as the first token of the reply."""
        options = {"max_tokens": 1, "logprobs": True, "top_logprobs": NUM_LIKELIEST}
        return await self._ask_all(questions, options, partial(_probabilities, words=words))

    async def _ask_all(
        self, questions: Sequence[Question], options: dict[str, Any], read: Callable[[Choice], Reply]
    ) -> list[Reply]:
        slots = asyncio.Semaphore(self.num_requests)
        async with self._client() as client:

            async def ask(question: Question) -> Reply:
                async with slots:
                    request = {"model": self.model, "messages": _messages(question), "temperature": 0.0, **options}
                    return await self._persist(
                        lambda: client.chat.completions.create(**request), lambda completion: read(_choice(completion))
                    )

            return await all_or_none([asyncio.ensure_future(ask(question)) for question in questions])

    async def _model_names(self) -> list[str]:
        async with self._client() as client:
            return await self._persist(lambda: client.get("/models", cast_to=object), _names)

    def _client(self) -> openai.AsyncOpenAI:
        # The client's own retries are off: they know no limit of the whole time, so a server that sends a byte now and
        # then would hold them forever, and they accept a broken answer.
        key = os.environ.get(KEY) or "none"  # the client insists on one
        remember_secrets({KEY: key})  # servers repeat it in their errors
        return openai.AsyncOpenAI(base_url=self.base_url, api_key=key, timeout=self.timeout, max_retries=0)

    async def _persist(self, send: Callable[[], Awaitable[Any]], read: Callable[[Any], Reply]) -> Reply:
        """Send a request until it is answered, or until another attempt is useless."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return read(await asyncio.wait_for(send(), self.timeout))
            except RETRIED as fault:
                if attempt > self.max_retries:
                    raise self._error(fault, attempt) from without_secrets(fault)
                await asyncio.sleep(delay(attempt, retry_after(fault)))
            except openai.OpenAIError as fault:
                raise self._error(fault, attempt) from without_secrets(fault)

    def _error(self, fault: Exception, attempts: int) -> RewardError:
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        return RewardError(
            f"No answer of model {self.model!r} from the server at {self.base_url} in {times} (timeout {self.timeout:g} s, "
            f"max_retries {self.max_retries}): {said(fault)}. {advice(fault)}"
        )


def _messages(question: Question) -> list[dict[str, Any]]:
    image = {"type": "image_url", "image_url": {"url": _data_uri(question.image)}}
    return [{"role": "user", "content": [image, {"type": "text", "text": question.text}]}]


def _data_uri(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


# The client returns any JSON, and even text that is not JSON, as if it were the answer: these functions look again.


def _names(page: Any) -> list[str]:
    try:
        return sorted(model["id"] for model in page["data"])
    except (KeyError, TypeError) as error:
        raise BadReplyError("the reply is not a list of models") from error


def _choice(completion: Any) -> Choice:
    try:
        return completion.choices[0]
    except (AttributeError, TypeError, IndexError) as error:
        raise BadReplyError("the answer is not a chat completion") from error


def _text(choice: Choice) -> str:
    try:
        text = (choice.message.content or "").strip()
    except AttributeError as error:
        raise BadReplyError("the answer has no message") from error
    if not text:
        raise BadReplyError(f"the answer is empty (finish_reason {choice.finish_reason!r})")
    return text


def _probabilities(choice: Choice, words: Sequence[str]) -> list[float]:
    try:
        tokens = [(token.token, math.exp(token.logprob)) for token in choice.logprobs.content[0].top_logprobs]  # type: ignore[union-attr, index]
    except (AttributeError, TypeError, IndexError) as error:
        raise BadReplyError("the answer has no top_logprobs, which this reward needs") from error
    return [sum(probability for token, probability in tokens if is_word(token, word)) for word in words]
