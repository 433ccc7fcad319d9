"""The options of a describer, described once for every reward that asks a vision-language model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ddpo_plugins import PluginError

from ..hub import LLAVA, LLAVA_REVISION

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class DescriberOptions:
    """
    Which vision-language model answers questions about images, and how it is reached.

    Parameters:
        model (`str`, *optional*, defaults to LLaVA 1.5 7B):
            Hub id or folder of an image-text-to-text model of transformers. With `base_url`, the server's name for it.
        revision (`str`, *optional*):
            Commit, tag or branch on the Hub, for a local model.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Precision of a local model's weights: `"auto"` (as in its files), `"float32"`, `"bfloat16"` or `"float16"`.
        base_url (`str`, *optional*):
            Address of an OpenAI-compatible server, for example `"http://localhost:8000/v1"`. If the server wants a key, it is
            read from the environment variable `OPENAI_API_KEY`.
        batch_size (`int`, *optional*, defaults to 8):
            Questions in one forward pass, or requests that are sent to a server before one is answered.
        timeout (`float`, *optional*, defaults to 120.0):
            Seconds to wait for one answer of a server.
        max_retries (`int`, *optional*, defaults to 5):
            How often a failed request to a server is sent again.

    Raises:
        [`PluginError`]: an option has a value that is not allowed.
    """

    model: str = LLAVA
    revision: str | None = LLAVA_REVISION
    dtype: str = "auto"
    base_url: str | None = None
    batch_size: int = 8
    timeout: float = 120.0
    max_retries: int = 5

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise PluginError(f"dtype is {self.dtype!r}; allowed: {', '.join(map(repr, DTYPES))}.")
        for option, value, fits, allowed in (
            ("batch_size", self.batch_size, self.batch_size >= 1, "at least 1"),
            ("timeout", self.timeout, self.timeout > 0, "above 0"),
            ("max_retries", self.max_retries, self.max_retries >= 0, "at least 0"),
        ):
            if not fits:
                raise PluginError(f"{option} is {value}; it must be {allowed}.")


def with_describer_options(build: Callable[..., Any]) -> Callable[..., Any]:
    """
    Turn `build(device, describer, *, ...)` into a factory that takes [`DescriberOptions`]' fields as options of its own.

    The factory's signature names every option, so that a misspelt one is a `TypeError`, and tools can list them.
    """
    common = inspect.signature(DescriberOptions).parameters
    device, _, *own = inspect.signature(build).parameters.values()
    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in common.values()]
    signature = inspect.Signature([device, *keywords, *own])

    @functools.wraps(build)
    def factory(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options).arguments
        describer = DescriberOptions(**{name: given[name] for name in common if name in given})
        rest = {name: value for name, value in given.items() if name not in common and name != device.name}
        return build(given[device.name], describer, **rest)

    factory.__signature__ = signature  # type: ignore[attr-defined] # where `inspect.signature` looks for it
    return factory
