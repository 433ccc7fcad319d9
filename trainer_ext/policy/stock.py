"""Makes images as a user of stock diffusers would."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from tqdm import tqdm

from ..images import to_uint8
from .runner import spread_texts, swapped
from .seeds import image_generators
from .transitions.own import own_scheduler
from .transitions.samplers import OWN
from .transitions.stand_in import stock_scheduler


@torch.no_grad()
def stock_images(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    batch_size: int,
    call_kwargs: Mapping[str, Any],
    on_step: Callable[[], None] = lambda: None,
    sampler: str | None = None,
) -> torch.Tensor:
    """
    Make images as a user of stock diffusers would: by the pipeline's own call with a stock scheduler, one seed per image.

    That is DDIM, which with training's `eta` is the sampler of training; or for flow matching Euler's method, which is
    training's sampler without the noise. With the sampler `"own"` it is the pipeline's own scheduler.

    Args:
        pipeline (`DiffusionPipeline`):
            The pipeline, with or without an adapter.
        prompts, seeds (`Sequence` of length B):
            Prompt and seed of each image.
        batch_size (`int`):
            Images made at once.
        call_kwargs (`Mapping[str, Any]`):
            Additional arguments of the call; `eta` is left out if the pipeline does not take it.
        on_step (`Callable[[], None]`, *optional*):
            Called after each denoising step of each batch.
        sampler (`str`, *optional*):
            Name of training's sampler.

    Returns:
        `torch.Tensor` of shape `(B, H, W, 3)`, uint8.
    """
    takes = inspect.signature(type(pipeline).__call__).parameters
    call_kwargs = {name: value for name, value in call_kwargs.items() if name != "eta" or name in takes}
    scheduler = (own_scheduler if sampler == OWN else stock_scheduler)(pipeline.scheduler)
    with swapped(pipeline, {"scheduler": scheduler}):
        return default_images(pipeline, prompts, seeds, batch_size, call_kwargs, on_step)


@torch.no_grad()
def default_images(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    batch_size: int,
    call_kwargs: Mapping[str, Any],
    on_step: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """
    Make images as [`stock_images`] does, but with the pipeline's own scheduler, as it came. Without the arguments in
    `call_kwargs` the pipeline's own steps and guidance apply.
    """
    images = []
    for first in range(0, len(prompts), batch_size):
        part = slice(first, first + batch_size)
        with _counted_steps(pipeline, on_step):
            made, *_ = pipeline(
                prompt=list(prompts[part]),
                generator=image_generators(seeds[part]),
                output_type="pt",
                return_dict=False,
                **spread_texts(call_kwargs, len(prompts[part])),
            )
        images.append(to_uint8(made))
    return torch.cat(images)


@contextlib.contextmanager
def _counted_steps(pipeline: DiffusionPipeline, on_step: Callable[[], None]) -> Iterator[None]:
    """Context manager in which the pipeline's own progress bar, which every pipeline moves, is not drawn, but heard."""

    class Heard(tqdm):  # type: ignore[type-arg]
        """A bar that is not drawn."""

        def update(self, n: float | None = 1) -> None:
            on_step()

        def __iter__(self) -> Iterator[Any]:
            for value in self.iterable:
                yield value
                on_step()

    vars(pipeline)["progress_bar"] = lambda iterable=None, total=None: Heard(iterable, total=total, disable=True)
    try:
        yield
    finally:
        del vars(pipeline)["progress_bar"]
