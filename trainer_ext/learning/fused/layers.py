"""Gradients of the weights of linear and convolutional layers, for each image of a batch by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import torch
from torch.nn import functional

from ...errors import PipelineError

Sink = Callable[[torch.Tensor, torch.Tensor], None]
Layer: TypeAlias = torch.nn.Linear | torch.nn.Conv2d


class MixedRowsError(PipelineError):
    """A layer's rows cannot be assigned to images."""


class LayerTaps:
    """
    Adds up the gradients of a module's trained weights, for each image by itself.

    To a trained layer with the input x and the gradient g of its output belongs the gradient g^T x. A hook on the layer keeps x
    until g arrives in the backward pass, where the sum over the rows of each image is taken instead of that over all rows.

    Args:
        module (`torch.nn.Module`):
            The trained module. All of its trained weights belong to layers that [`foreign_weight`] knows.
        num_images (`int`):
            B.

    Parameters:
        num_branches (`int`):
            Rows of each image in the call of the module that is about to be made.
        gradients (`dict[str, torch.Tensor]`, each of shape `(B, ...)`, float32):
            What was added so far, by the names of the weights in `module`.
    """

    def __init__(self, module: torch.nn.Module, num_images: int):
        self.num_images, self.num_branches = num_images, 1
        self._layers = {name: layer for name, layer in module.named_modules() if any(True for _ in _trained(layer))}
        self._weights = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.gradients = {
            name: torch.zeros(num_images, *value.shape, device=value.device) for name, value in self._weights.items()
        }

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Context manager in which backward passes add to the gradients, and to no `grad` of a weight."""
        handles = [layer.register_forward_hook(self._hook(name)) for name, layer in self._layers.items()]
        for weight in self._weights.values():
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for weight in self._weights.values():
                weight.requires_grad_(True)

    def _hook(self, name: str) -> Callable[..., Any]:
        def hook(layer: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
            if not torch.is_grad_enabled():
                return None
            anchor = output.new_empty(
                0, requires_grad=True
            )  # the weights do not, so that autograd takes no gradient of them
            sink = partial(self._add, name, layer, self.num_branches)
            return _Tap.apply(anchor, args[0].detach(), output, sink)

        return hook

    def _add(self, name: str, layer: Layer, num_branches: int, x: torch.Tensor, g: torch.Tensor) -> None:
        """Add the gradients of a layer with the input `x` and the gradient `g` of its output."""
        x, g = (self._by_image(value, num_branches) for value in _as_rows(layer, x, g))
        weight, bias = (self.gradients.get(f"{name}.{key}") for key in ("weight", "bias"))
        if weight is not None:
            weight.view(self.num_images, len(layer.weight), -1).baddbmm_(g.transpose(1, 2).to(weight), x.to(weight))
        if bias is not None:
            bias += g.sum(1)

    def _by_image(self, values: torch.Tensor, num_branches: int) -> torch.Tensor:
        """Arrange `(..., features)`, which goes through the images once for each branch, as `(B, places, features)`."""
        rows = values.flatten(0, -2)
        if len(rows) % (num_branches * self.num_images):
            raise MixedRowsError(
                f"a trained layer is called with {len(rows)} rows for {self.num_images} images in {num_branches} branches"
            )
        return rows.unflatten(0, (num_branches, self.num_images, -1)).transpose(0, 1).flatten(1, 2)


class _Tap(torch.autograd.Function):
    """The identity of `output`. In the backward pass, `sink` gets the layer's input and the gradient of its output."""

    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, inputs: torch.Tensor, output: torch.Tensor, sink: Sink) -> torch.Tensor:
        ctx.save_for_backward(inputs)
        ctx.sink = sink
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ctx.sink(*ctx.saved_tensors, gradients[0])
        return None, None, gradients[0], None


def foreign_weight(module: torch.nn.Module) -> str | None:
    """Return the name of a trained weight that belongs to no plain linear or convolutional layer, if there is one."""
    for name, layer in module.named_modules():
        for key in _trained(layer):
            if key not in ("weight", "bias") or not _is_known(layer):
                return f"{name}.{key}"
    return None


def _trained(layer: torch.nn.Module) -> Iterator[str]:
    return (key for key, value in layer.named_parameters(recurse=False) if value.requires_grad)


def _is_known(layer: torch.nn.Module) -> bool:
    if type(layer) is torch.nn.Conv2d:
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) is torch.nn.Linear


def _as_rows(layer: Layer, x: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input and gradient as `(R, ..., features)`: for a convolution, the patches of its input at each place."""
    if isinstance(layer, torch.nn.Linear):
        return x, g
    patches = functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    return patches.transpose(1, 2), g.flatten(2).transpose(1, 2)
