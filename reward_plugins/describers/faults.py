"""Faults of requests to a server: which are worth another attempt, and advice for the others."""

from __future__ import annotations

import asyncio

import openai

from ddpo_plugins.masking import masked_message


class BadReplyError(ValueError):
    """The server's reply is not an answer to the request."""


# ValueError: broken JSON. Everything else, such as a wrong key or a refused request, fails at once.
RETRIED = (
    openai.APIConnectionError,
    openai.RateLimitError,
    openai.InternalServerError,
    asyncio.TimeoutError,
    ValueError,
)

_BUSY = "It is overloaded or broken: see its log, lower `batch_size`, or raise `max_retries`."
_SLOW = "If it is busy, raise `timeout` or lower `batch_size`; if it hangs, start it again."
_NO_PROBABILITIES = (
    "The server gives no log-probabilities, which this reward needs: use vLLM or SGLang, or a local model."
)
ADVICE = (  # the first one that fits is used
    (openai.APITimeoutError, _SLOW),
    (asyncio.TimeoutError, _SLOW),
    (openai.APIConnectionError, "Start it, or correct `base_url`."),
    ((openai.RateLimitError, openai.InternalServerError), _BUSY),
    ((openai.AuthenticationError, openai.PermissionDeniedError), "Set its key in the environment: OPENAI_API_KEY."),
    (openai.NotFoundError, "Correct `base_url`, which usually ends in /v1, or `model`."),
    (ValueError, "See whether it is an OpenAI-compatible server and what its log says of this request."),
    (Exception, "See its log; the model must take images and chats."),
)


def advice(fault: Exception) -> str:
    """Return advice, in one sentence."""
    if "logprobs" in str(fault):  # servers refuse them by this name, or leave them out
        return _NO_PROBABILITIES
    return next(text for kind, text in ADVICE if isinstance(fault, kind))


def said(fault: Exception) -> str:
    """Return a description of the fault, without secrets. A time-out has no text itself."""
    if isinstance(fault, asyncio.TimeoutError):
        return "timed out"
    return f"{type(fault).__name__}: {masked_message(str(fault))[:500].rstrip('.')}"


def retry_after(fault: Exception) -> str:
    """Return the seconds that a server asks to wait for; empty if it does not."""
    return fault.response.headers.get("retry-after", "") if isinstance(fault, openai.APIStatusError) else ""
