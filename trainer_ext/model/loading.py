"""From the name of a model to a pipeline."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from packaging.version import Version

from ..errors import ConfigError, PipelineError
from ..file_names import why_no_place
from ..shipped import EMBEDDED, EMBEDDED_POSTERS, SHIPPED, embedded_model
from .quantization import quantization_config

logger = logging.getLogger(__name__)

# diffusers 0.40 renamed the argument and warns about the old name.
DTYPE_ARGUMENT = "dtype" if Version(diffusers.__version__) >= Version("0.40") else "torch_dtype"


def load_pipeline(model: str | Path | DiffusionPipeline, dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
    """
    Load a pipeline for training or sampling, or prepare one that is already loaded.

    Args:
        model (`str`, `Path` or `DiffusionPipeline`):
            A Hub id, a folder, `"embedded"`, `"embedded-posters"`, or a pipeline.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            Precision of the weights. Always passed on: without it, text encoder and denoiser may load in different ones.

    Raises:
        [`PipelineError`]: there is no such pipeline.
    """
    return prepare_pipeline(open_pipeline(model, dtype))


def open_pipeline(
    model: str | Path | DiffusionPipeline, dtype: torch.dtype, quantization: str | None = None
) -> DiffusionPipeline:
    """
    Load a pipeline, with its denoiser quantised if asked for, or return one that is already loaded as it is.

    Raises:
        [`PipelineError`]: there is no such pipeline, or `model` is something else.
        [`ConfigError`]: it is already loaded, or has an adapter of its own, and would have to be quantised.
    """
    if isinstance(model, DiffusionPipeline) and quantization is not None:
        raise ConfigError(
            f"quantization is {quantization!r}, and the model is a pipeline that is already loaded. Give its Hub id or "
            "folder, or load it with diffusers' quantization_config and leave quantization out."
        )
    if model == EMBEDDED_POSTERS and quantization is not None:
        raise ConfigError(
            f"quantization is {quantization!r}, and {EMBEDDED_POSTERS!r} is made of whole weights and an adapter. Leave it out, "
            f"or take {EMBEDDED!r}."
        )
    if not isinstance(model, str | Path | DiffusionPipeline):
        given = model.__name__ if isinstance(model, type) else f"a {type(model).__name__}"
        raise PipelineError(
            f"The model is {given}; give a whole pipeline (a DiffusionPipeline, not its unet or transformer), the id of one on "
            "the Hub, or a folder that holds one."
        )
    return model if isinstance(model, DiffusionPipeline) else _from_pretrained(str(model), dtype, quantization)


def prepare_pipeline(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """Turn off what has no place in training or sampling: safety checker, progress bar, dropout. Returns the pipeline."""
    if pipeline.components.get("safety_checker") is not None:
        # It would answer with black images, and a reward would learn from those.
        pipeline.register_modules(safety_checker=None)
        logger.warning(
            "The pipeline's safety checker is off in training: its black images would be rewarded like any other."
        )
    pipeline.set_progress_bar_config(disable=True)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    return pipeline


def decode_in_parts(pipeline: DiffusionPipeline, slicing: bool, tiling: bool) -> None:
    """
    Let the pipeline's VAE decode image by image (slicing), and each image in tiles (tiling), besides what it does already.

    Raises:
        [`ConfigError`]: the pipeline has no VAE that can.
    """
    vae = pipeline.components.get("vae")
    able = {} if vae is None else vars(vae)
    for wanted, name, flag in ((slicing, "vae_slicing", "use_slicing"), (tiling, "vae_tiling", "use_tiling")):
        if wanted and flag not in able:
            raise ConfigError(
                f"{name} is set, and the VAE of this {type(pipeline).__name__} ({'none' if vae is None else type(vae).__name__}) "
                "cannot do that. Leave it out; a smaller rollout_batch_size takes less memory too."
            )
        if wanted:
            able[flag] = True


def _from_pretrained(model: str, dtype: torch.dtype, quantization: str | None) -> DiffusionPipeline:
    folder = str(embedded_model()) if model in SHIPPED else model
    try:
        if (problem := why_no_place(folder)) is not None:
            raise FileNotFoundError(problem)
        arguments: dict[str, Any] = {DTYPE_ARGUMENT: dtype, **_left_out(folder)}
        if quantization is not None:
            arguments["quantization_config"] = quantization_config(quantization, folder, dtype)
        return _with_own_adapter(DiffusionPipeline.from_pretrained(folder, **arguments), SHIPPED.get(model))
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"No pipeline could be loaded from {model!r}: {str(error).rstrip('.')}.\nGive the id of a diffusers pipeline on the "
            f"Hub, a folder that holds one, {EMBEDDED!r} or {EMBEDDED_POSTERS!r}."
        ) from error


def _left_out(folder: str) -> dict[str, None]:
    """Return the components that a pipeline was saved without: diffusers loads it only with these as arguments, SD3's T5 say."""
    return {name: None for name, found in DiffusionPipeline.load_config(folder).items() if found == [None, None]}


def _with_own_adapter(pipeline: DiffusionPipeline, adapter: str | None) -> DiffusionPipeline:
    """Add the adapter that belongs to a model to its weights."""
    if adapter is not None:
        pipeline.load_lora_weights(embedded_model() / adapter)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    return pipeline
