"""What a run changes in a pipeline that the user handed over, and giving it back as it came."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin

from ..errors import PipelineError
from .denoiser import TrainedDenoiser
from .inspection import GRADIENTS_OFF
from .offloading import offload, offloaded_from, stop_offloading

IN_PARTS = ("use_slicing", "use_tiling")  #: attributes of diffusers' VAEs


@dataclass(frozen=True)
class PipelineState:
    """
    What a run changes in a pipeline, other than the weights that it trains.

    Parameters:
        safety_checker (`torch.nn.Module`, *optional*):
            The safety checker, if the pipeline has one.
        progress_bar (`Mapping[str, Any]`):
            Settings of the progress bar.
        devices (`Mapping[torch.nn.Module, torch.device | None]`):
            Where the weights of each component are, if it has any.
        offloaded (`Mapping[torch.nn.Module, torch.device | None]`):
            Where each component computes that is offloaded.
        in_training (`Mapping[torch.nn.Module, bool]`):
            Whether each module is in training mode.
        recomputing (`Mapping[ModelMixin, bool]`):
            Whether each model recomputes its activations in the backward pass.
        parts (`Mapping[ModelMixin, Mapping[str, bool]]`):
            Whether each model decodes image by image, and in tiles, if it can.
    """

    safety_checker: Any
    progress_bar: Mapping[str, Any]
    devices: Mapping[torch.nn.Module, torch.device | None]
    offloaded: Mapping[torch.nn.Module, torch.device | None]
    in_training: Mapping[torch.nn.Module, bool]
    recomputing: Mapping[ModelMixin, bool]
    parts: Mapping[ModelMixin, Mapping[str, bool]]

    @classmethod
    def of(cls, pipeline: DiffusionPipeline) -> PipelineState:
        """Return the state of a pipeline."""
        networks = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
        models = [part for part in networks.values() if isinstance(part, ModelMixin)]
        return cls(
            pipeline.components.get("safety_checker"),
            dict(vars(pipeline).get("_progress_bar_config", {})),
            {part: _device(part) for part in networks.values()},
            {part: offloaded_from(part) for part in networks.values()},
            {module: module.training for part in networks.values() for module in part.modules()},
            {model: model.is_gradient_checkpointing for model in models},
            {model: {name: value for name, value in vars(model).items() if name in IN_PARTS} for model in models},
        )

    def restore(self, pipeline: DiffusionPipeline) -> None:
        """Bring a pipeline into this state."""
        if "safety_checker" in pipeline.components:
            pipeline.register_modules(safety_checker=self.safety_checker)
        pipeline.set_progress_bar_config(**self.progress_bar)
        changed = [part for part, device in self.offloaded.items() if offloaded_from(part) != device]
        for part in changed:
            if offloaded_from(part) is not None:
                stop_offloading(part)
        if not torch.distributed.is_initialized():  # several processes share what they have on their devices
            for part, device in self.devices.items():
                if _device(part) != device:
                    part.to(device)
        for part in changed:
            if (device := self.offloaded[part]) is not None:
                offload(part, device)
        for module, training in self.in_training.items():
            module.training = training
        for model, recomputing in self.recomputing.items():
            if model.is_gradient_checkpointing != recomputing:
                model.enable_gradient_checkpointing() if recomputing else model.disable_gradient_checkpointing()
        for model, flags in self.parts.items():
            vars(model).update(flags)


def _device(module: torch.nn.Module) -> torch.device | None:
    return next((value.device for value in module.parameters()), None)


# The states in which pipelines came that have not been given back: also those of a trainer that failed, or never trained.
_CAME: weakref.WeakKeyDictionary[DiffusionPipeline, PipelineState] = weakref.WeakKeyDictionary()


def remember(pipeline: DiffusionPipeline) -> None:
    """Note the state in which a pipeline comes, before anything in it is changed."""
    _CAME.setdefault(pipeline, PipelineState.of(pipeline))


def give_back(pipeline: DiffusionPipeline) -> None:
    """Bring a pipeline into the state in which it came, if that was noted."""
    if pipeline in _CAME:
        _CAME.pop(pipeline).restore(pipeline)


@contextlib.contextmanager
def given_back_on_error(pipeline: DiffusionPipeline) -> Iterator[None]:
    """Context manager that gives the pipeline back if the block fails."""
    try:
        yield
    except BaseException:
        give_back(pipeline)
        raise


class Loan:
    """
    A pipeline in a trainer's hands. One that the trainer loaded itself is never given back.

    Args:
        pipeline (`DiffusionPipeline`):
            The pipeline, ready for training.
        denoiser ([`TrainedDenoiser`]):
            Its denoiser in trained form.
    """

    def __init__(self, pipeline: DiffusionPipeline, denoiser: TrainedDenoiser):
        self.pipeline = pipeline
        self.denoiser = denoiser
        self.came = _CAME.get(pipeline)
        self.working = PipelineState.of(pipeline)
        self.depth = 0

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """
        Context manager in which the pipeline is ready for training; at its end, it is given back as it came.

        Raises:
            [`PipelineError`]: the adapter is no longer in place.
        """
        self.denoiser.check_in_place()
        self._begin()
        try:
            yield
        finally:
            self._end()

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """
        As [`in_use`](Loan.in_use), with gradients.

        Raises:
            [`PipelineError`]: the adapter is no longer in place, or gradients are off.
        """
        if not torch.is_grad_enabled():
            raise PipelineError(GRADIENTS_OFF)
        with self.in_use():
            yield

    def _begin(self) -> None:
        if self.came is not None and self.depth == 0 and self.pipeline not in _CAME:
            _CAME[self.pipeline] = self.came
            self.working.restore(self.pipeline)
        self.depth += 1

    def _end(self) -> None:
        self.depth -= 1
        if self.depth == 0:
            give_back(self.pipeline)
