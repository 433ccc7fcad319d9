"""The saved adapter in a stock pipeline: it must draw the run's last pictures again."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from ...config import DDPOConfig
from ...model.loading import load_pipeline
from ...model.stock import load_adapter
from ...policy.stock import stock_images
from ...reproduction.evidence import Reload
from ...runs.drawings import SampleSheet
from ...runs.folder import RunFolder
from ..drawing.recorded import newest_weights_of, recorded_settings
from ..options import settings_of
from ..sample import SampleOptions


def reload_of(folder: RunFolder, config: DDPOConfig) -> Reload | None:
    """
    Load the run's adapter as users of diffusers do, and draw the fixed prompts and seeds as the run drew them last.

    Returns:
        [`Reload`]: how the pictures differ; `None` if the run drew none.
    """
    sheets = [sheet for sheet in folder.samples() if sheet.is_complete]
    if len(sheets) < 2:
        return None
    options = SampleOptions(**recorded_settings(str(folder.path)))
    gc.collect()  # the trainer, which refers to itself: there may not be room for two models
    pipeline = load_pipeline(options.model_name_or_path, config.weights_dtype).to(config.device)
    load_adapter(pipeline, newest_weights_of(str(folder.path)))(True)
    before, after = (_pictures(sheet) for sheet in (sheets[0], sheets[-1]))
    drawn = _drawn(pipeline, sheets[-1], config.rollout_batch_size, options)
    off = np.abs(drawn.astype(np.int16) - after)
    return Reload(
        n=len(after),
        differing=int(off.any(axis=(1, 2, 3)).sum()),
        error=float(off.mean()),
        change=float(np.abs(after.astype(np.int16) - before).mean()),
    )


def _drawn(pipeline: DiffusionPipeline, sheet: SampleSheet, batch_size: int, options: SampleOptions) -> np.ndarray:
    prompts = [record["prompt"] for record in sheet.records]
    seeds = [record["seed"] for record in sheet.records]
    images: torch.Tensor = stock_images(pipeline, prompts, seeds, batch_size, settings_of(options))
    return images.cpu().numpy()


def _pictures(sheet: SampleSheet) -> np.ndarray:
    files: Sequence[Path] = [file for file in sheet.files if file is not None]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
