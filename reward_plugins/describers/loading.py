"""Builds a describer from the options of a reward, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpo_plugins import PluginError

from ..hub import LLAVA, LLAVA_REVISION, missing_extra, revision_of
from .interface import Describer

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_describer(
    device: torch.device | str,
    model: str,
    revision: str | None,
    dtype: str,
    base_url: str | None,
    batch_size: int,
    timeout: float,
    max_retries: int,
) -> Describer:
    """
    Load a vision-language model, or find it on a server.

    Args:
        device (`torch.device` or `str`):
            Where a local model runs.
        model (`str`):
            Hub id or folder of an image-text-to-text model of transformers. With `base_url`, the server's name for it.
        revision (`str`, *optional*):
            Commit, tag or branch on the Hub, of a local model.
        dtype (`str`):
            Of a local model's weights: `"auto"` (as in its files), `"float32"`, `"bfloat16"` or `"float16"`.
        base_url (`str`, *optional*):
            Of an OpenAI-compatible server, for example `"http://localhost:8000/v1"`. A key that it wants is read from the
            environment variable `OPENAI_API_KEY`.
        batch_size (`int`):
            Questions at once: of a forward pass, or requests that a server is sent before one is answered.
        timeout (`float`):
            Seconds that a server has for one answer.
        max_retries (`int`):
            How often a request is sent again that a server did not answer.

    Raises:
        [`PluginError`]: the package `openai` is missing, an option has no sense, or the revision is another model's.
        [`RewardError`]: the server does not answer, or does not have the model.
    """
    _check(dtype, batch_size, timeout, max_retries)
    if base_url is None:
        from .local import LocalDescriber

        return LocalDescriber(model, revision_of(model, revision, (LLAVA, LLAVA_REVISION)), device, dtype, batch_size)
    try:
        from .server import ServerDescriber
    except ModuleNotFoundError as error:
        raise missing_extra("The package openai, which talks to servers,", "server") from error
    return ServerDescriber(base_url, model, batch_size, timeout, max_retries)


def _check(dtype: str, batch_size: int, timeout: float, max_retries: int) -> None:
    if dtype not in DTYPES:
        raise PluginError(f"dtype is {dtype!r}; allowed: {', '.join(map(repr, DTYPES))}.")
    for option, value, fits, allowed in (
        ("batch_size", batch_size, batch_size >= 1, "at least 1"),
        ("timeout", timeout, timeout > 0, "above 0"),
        ("max_retries", max_retries, max_retries >= 0, "at least 0"),
    ):
        if not fits:
            raise PluginError(f"{option} is {value}; it must be {allowed}.")
