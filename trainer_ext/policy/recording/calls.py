"""Records how a pipeline calls its denoiser, so that the same calls can be repeated with gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from ...errors import PipelineError
from .verdicts import is_same

TIME_ARGUMENTS = ("timestep", "timesteps", "t")


Rows: TypeAlias = torch.Tensor | list[torch.Tensor]  #: some denoisers take and return a list with a tensor for each row


@dataclass(frozen=True)
class DenoiserCall:
    """
    One call of the denoiser.

    Parameters:
        arguments (`Mapping[str, Any]`):
            The arguments by name, in the order of the signature; nested mappings flattened (`"added_cond_kwargs.time_ids"`).
        output (`torch.Tensor` of shape `(copies * B, ...)`, or a list of `copies * B` tensors):
            The output of the call.
    """

    arguments: Mapping[str, Any]
    output: Rows


@dataclass(frozen=True)
class CallLayout:
    """
    The form of one of the denoiser calls of a step, which stays the same in every step.

    Parameters:
        latents_name (`str`):
            Argument that holds the latents.
        time_name (`str`):
            Argument that holds the timestep.
        copies (`int`):
            Rows for each image: 2 where one call carries both branches of guidance, one after the other.
        per_image (`frozenset[str]`):
            Arguments with `copies` rows for each image. The others are shared.
        dtype (`torch.dtype`):
            Precision of the latents that the pipeline passes.
        row_shape (`torch.Size`):
            Shape of one row of the latents in that argument; it has as many elements as in the scheduler.
        is_list (`bool`):
            Whether that argument is a list with a tensor for each row.
    """

    latents_name: str
    time_name: str
    copies: int
    per_image: frozenset[str]
    dtype: torch.dtype
    row_shape: torch.Size
    is_list: bool

    def latents_argument(self, latents: torch.Tensor) -> Rows:
        """Repeat `latents` `(B, ...)` for each branch, in the denoiser's dtype and shape: `copies * B` rows."""
        repeated = latents.repeat(self.copies, *[1] * (latents.dim() - 1)).to(self.dtype)
        rows = repeated.reshape(len(repeated), *self.row_shape)
        return list(rows.unbind()) if self.is_list else rows

    def branches(self, output: Rows, state_shape: torch.Size) -> tuple[torch.Tensor, ...]:
        """Split an output of `copies * B` rows into one `(B, ...)` for each branch, in the scheduler's shape of an image."""
        rows = torch.stack(output) if isinstance(output, list) else output
        if rows[0].numel() == state_shape.numel():
            rows = rows.reshape(-1, *state_shape)
        return rows.chunk(self.copies)


class Recorder:
    """
    Replaces `pipeline.unet` or `pipeline.transformer` during a rollout.

    The pipeline sees the attributes of `module`; its calls go to `denoiser`, the module in its trained form (with
    adapter, autocast, DDP), because sampling through anything else makes ratios differ from 1 before the first update.
    """

    def __init__(self, module: torch.nn.Module, denoiser: Callable[..., Any]):
        self._module = module
        self._denoiser = denoiser
        self._signature = inspect.signature(module.forward)
        self._dtypes: dict[str, torch.dtype] = {}
        self._calls: list[DenoiserCall] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the denoiser and note the arguments and the output."""
        named = self._signature.bind(*args, **kwargs).arguments
        named.update(named.pop("kwargs", {}))
        latents_name = next(iter(named))
        # The scheduler keeps latents in float32. The denoiser gets them, and timesteps that pipelines cast like them, in the
        # dtype that the pipeline gave them first. And always in the same memory format: kernels differ by a rounding.
        for name in {latents_name} | (named.keys() & set(TIME_ARGUMENTS)):
            if isinstance(named[name], torch.Tensor | list):  # a timestep may be a number
                named[name] = in_dtype(named[name], self._dtypes.setdefault(name, _dtype(named[name])))
        output = self._denoiser(**named)
        self._calls.append(DenoiserCall(flatten(named), output[0]))
        return output

    def take_calls(self) -> list[DenoiserCall]:
        """Return the calls since the last step, and forget them."""
        calls, self._calls = self._calls, []
        return calls


def infer_layout(two: DenoiserCall, three: DenoiserCall) -> CallLayout:
    """
    Distinguish arguments with one row for each image from shared ones, by comparing the call for 2 with that for 3 prompts.

    One batch size would not be enough: a constant of length 3 looks like an argument of 3 images.

    Raises:
        [`PipelineError`]: an argument's length does not follow the number of images, or there is no timestep.
    """
    latents_name = next(iter(two.arguments))
    time_name = next((name for name in two.arguments if name in TIME_ARGUMENTS), None)
    if time_name is None:
        raise PipelineError(
            f"The denoiser is called with {', '.join(two.arguments)}; none is a timestep ({', '.join(TIME_ARGUMENTS)})."
        )
    copies, remainder = divmod(len(two.arguments[latents_name]), 2)
    if remainder or len(three.arguments[latents_name]) != 3 * copies:
        rows = [len(call.arguments[latents_name]) for call in (two, three)]
        raise PipelineError(
            f"The denoiser's batch does not grow with the number of prompts: {rows[0]} rows for 2, {rows[1]} for 3. A pipeline "
            "that draws images one by one, or in pieces, cannot be replayed."
        )
    sizes = {name: (num_rows(value), num_rows(three.arguments[name])) for name, value in two.arguments.items()}
    growing = {name: size for name, size in sizes.items() if size[0] != size[1]}
    for name, (rows_two, rows_three) in growing.items():
        if (rows_two, rows_three) != (2 * copies, 3 * copies):
            raise PipelineError(
                f"The denoiser's argument {name!r} has {rows_two} rows for 2 images and {rows_three} for 3; expected "
                f"{2 * copies} and {3 * copies}, or the same number for both. This pipeline cannot be replayed image by image."
            )
    per_image = frozenset(growing) - {latents_name, time_name}
    latents = two.arguments[latents_name]
    first = latents[0]
    return CallLayout(latents_name, time_name, copies, per_image, first.dtype, first.shape, isinstance(latents, list))


def _dtype(rows: Rows) -> torch.dtype:
    return rows[0].dtype if isinstance(rows, list) else rows.dtype


def in_dtype(rows: Rows, dtype: torch.dtype) -> Rows:
    """Cast rows to `dtype`, in contiguous memory."""
    return [row.to(dtype).contiguous() for row in rows] if isinstance(rows, list) else rows.to(dtype).contiguous()


def detached(output: Any) -> Any:
    """Return a denoiser's output, a tuple or an output class of diffusers, whose rows carry no gradient."""
    rows: Rows = output[0]
    own = [row.detach() for row in rows] if isinstance(rows, list) else rows.detach()
    if isinstance(output, tuple):
        return (own, *output[1:])
    return type(output)(**{**output, next(iter(output)): own})


def num_rows(value: Any) -> int | None:
    """Return the length of a batch-like argument, `None` for any other."""
    if isinstance(value, torch.Tensor):
        return len(value) if value.dim() else None
    return len(value) if isinstance(value, list) else None


def flatten(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Replace nested mappings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def unflatten(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Undo [`flatten`]."""
    nested: dict[str, Any] = {}
    for name, value in arguments.items():
        head, dot, tail = name.partition(".")
        if dot:
            nested.setdefault(head, {})[tail] = value
        else:
            nested[head] = value
    return nested


def is_close(first: Any, second: Any) -> bool:
    """Return whether two arguments are equal up to rounding, as from sums in a different order."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.shape == second.shape and torch.allclose(first.float(), second.float(), rtol=0.05, atol=0.05)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(is_close(value, second[name]) for name, value in first.items())
    if isinstance(first, list | tuple) and type(first) is type(second):
        return len(first) == len(second) and all(is_close(a, b) for a, b in zip(first, second, strict=True))
    return is_same(first, second)
