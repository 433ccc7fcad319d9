"""The trained module: a denoiser with a LoRA adapter, or the denoiser itself, as `transformers.Trainer` wants it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.loaders.lora_base import LoraBaseMixin
from peft import LoraConfig
from torch.distributed.tensor import DTensor
from transformers import PretrainedConfig

from ..errors import ConfigError, PipelineError
from ..file_names import LORA_FILE, PEFT_FILE
from .adapter_files import adapter_metadata, adapter_state, load_adapter, save_for_peft
from .lora import ADAPTER_NAME, add_adapter
from .ownership import adapter_layers, claim, is_owner
from .quantization import plain


class TrainedDenoiser(torch.nn.Module):
    """
    The part of a pipeline that the optimizer trains.

    Args:
        base (`diffusers.ModelMixin`):
            The pipeline's denoiser. A LoRA adapter is injected in place, so the pipeline samples with it.
        name (`str`):
            `"unet"` or `"transformer"`.
        peft_config (`LoraConfig`, *optional*):
            The adapter. `None` trains all weights.
        keep_reference (`bool`, *optional*, defaults to `False`):
            Whether [`reference`](TrainedDenoiser.reference) will be needed; for an adapter it costs nothing.
    """

    def __init__(self, base: ModelMixin, name: str, peft_config: LoraConfig | None, keep_reference: bool = False):
        super().__init__()
        self.name = name
        self.network: Any  # ModelMixin or PeftModel
        # In a tuple: no submodule, so that it is neither trained, counted nor wrapped.
        self._reference: tuple[ModelMixin, ...] = ()
        if keep_reference and peft_config is None:
            self._reference = (copy.deepcopy(base),)
        if peft_config is None:
            self.network = base.requires_grad_(True)
        else:
            self.network = add_adapter(base, peft_config)
        self.peft_config = peft_config
        claim(base, self)
        # TensorBoard, MLflow and the Trainer itself expect a transformers config, not diffusers' frozen dict.
        self.config = PretrainedConfig.from_dict({"denoiser": plain(base.config)})

    @property
    def base(self) -> ModelMixin:
        """The pipeline's denoiser."""
        return self.network if self.peft_config is None else self.network.get_base_model()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the denoiser."""
        return self.network(*args, **kwargs)

    @property
    def keeps_reference(self) -> bool:
        """Whether [`reference`](TrainedDenoiser.reference) can lend the denoiser as it was before training."""
        return self.peft_config is not None or bool(self._reference)

    @contextlib.contextmanager
    def reference(self) -> Iterator[Callable[..., Any]]:
        """Context manager that yields the denoiser as it was before training: with the adapter off, or as a copy."""
        if self.peft_config is None:
            yield self._reference[0]
            return
        with self.network.disable_adapter():
            yield self

    def check_owned(self) -> None:
        """
        Check that the pipeline still has what this module trains.

        Raises:
            [`PipelineError`]: the adapter was taken off, or another trainer has the denoiser.
        """
        if not is_owner(self.base, self) or (self.peft_config is not None and not any(adapter_layers(self.base))):
            raise PipelineError(
                f"pipeline.{self.name} no longer holds what this trainer trained: unload_lora_weights() took its adapter off, or "
                "another DDPOTrainer has the pipeline. Nothing is written, so that saved files stay. Make a new trainer."
            )

    def check_in_place(self) -> None:
        """
        Check that the adapter is what the denoiser computes with.

        Raises:
            [`PipelineError`]: as [`check_owned`](TrainedDenoiser.check_owned), or it is fused, off, or not the only one.
        """
        self.check_owned()
        for layer in adapter_layers(self.base):
            if layer.merged or layer.disable_adapters or list(layer.active_adapters) != [ADAPTER_NAME]:
                raise PipelineError(
                    f"The adapter in pipeline.{self.name} is fused, switched off, or not the only one; it cannot be trained so. "
                    "Undo it with pipeline.unfuse_lora(), enable_lora() or delete_adapters(), or make a new trainer."
                )

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Recompute activations in the backward pass (called by `Trainer`)."""
        self.base.enable_gradient_checkpointing()

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """Recompute activations in the backward pass: the name that older versions of transformers call."""
        self.base.enable_gradient_checkpointing()

    def save(self, folder: Path, pipeline: DiffusionPipeline, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """
        Write files that stock diffusers loads: a LoRA file for `load_lora_weights`, or the whole pipeline.

        If the pipeline has no `load_lora_weights`, write a folder for `PeftModel.from_pretrained` and its denoiser.

        Args:
            folder (`Path`):
                Folder to write to.
            pipeline (`DiffusionPipeline`):
                The pipeline that the denoiser belongs to.
            state (`Mapping[str, torch.Tensor]`, *optional*):
                The trained weights, by this module's names; needed where the module's own are sharded.

        Raises:
            [`PipelineError`]: the pipeline no longer has what this module trains.
        """
        self.check_owned()
        if self.peft_config is None:
            with contextlib.nullcontext() if state is None else self._whole(pipeline, state):
                pipeline.save_pretrained(folder)
            return
        if not isinstance(pipeline, LoraBaseMixin):
            save_for_peft(self.network, self.name, folder, state)
            return
        metadata = {f"{self.name}_lora_adapter_metadata": self.lora_metadata()}  # or lora_alpha is lost, silently
        type(pipeline).save_lora_weights(
            folder, **{f"{self.name}_lora_layers": adapter_state(self.network, state), **metadata}
        )

    @contextlib.contextmanager
    def _whole(self, pipeline: DiffusionPipeline, state: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Context manager in which the pipeline has a denoiser with whole weights, on the CPU, in the place of a sharded one."""
        with torch.device("meta"):
            copied = type(self.base).from_config(self.base.config)
        own = {name: value for name, value in self.base.named_buffers() if not isinstance(value, DTensor)}
        weights = {key.removeprefix("network."): value for key, value in state.items()}
        kept = {name: own[name].cpu() for name in copied.state_dict() if name not in weights}
        copied.load_state_dict({**weights, **kept}, assign=True)
        setattr(pipeline, self.name, copied)
        try:
            yield
        finally:
            setattr(pipeline, self.name, self.base)

    def load(self, folder: Path) -> None:
        """
        Load what [`save`](TrainedDenoiser.save) wrote into the parameters that the optimizer holds.

        Raises:
            [`ConfigError`]: the folder holds no such weights, or those of an adapter with other options.
        """
        file = PEFT_FILE if (folder / PEFT_FILE).is_file() else LORA_FILE
        kind, place = ("full weights", self.name) if self.peft_config is None else ("adapter", file)
        if not (folder / place).exists():
            raise ConfigError(f"{folder} holds no {kind} ({place}): was the run's full_finetuning changed?")
        try:
            if self.peft_config is None:
                state = type(self.base).from_pretrained(folder / self.name).state_dict()
                self.base.load_state_dict(state)
            else:
                load_adapter(self.network, self.name, folder / file)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"The weights in {folder} do not load into this model: {error}") from error

    def lora_metadata(self) -> dict[str, Any]:
        """Return the adapter's options, with all their layers."""
        return adapter_metadata(self.network)
