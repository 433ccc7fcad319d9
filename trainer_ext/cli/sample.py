"""`ddpo sample`: the same prompts and seeds with and without an adapter, by stock diffusers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..options import DDPOOptions, described, option
from ..values import CheckedOptions
from .options import settings_of
from .parse import parse_alone

PROG = "ddpo sample"


@described
@dataclass
class SampleOptions(CheckedOptions):
    """Options of `ddpo sample`: which images to make, and how."""

    model_name_or_path: str = option("embedded", "Hub id or folder of the base pipeline.")
    adapter: str | None = option(None, "Folder or Hub id of a run's adapter, for a second row of images.")
    prompts: list[str] = field(
        default_factory=lambda: ["a cat", "a dog", "a lion", "a butterfly"],
        metadata={"help": "Prompts, one image each."},
    )
    seeds: list[int] | None = option(None, "One seed for each prompt, or one for all; 0, 1, 2, ... by default.")
    num_inference_steps: int = option(DDPOOptions.num_inference_steps, "Denoising steps.")
    guidance_scale: float = option(DDPOOptions.guidance_scale, "Guidance scale; use that of training.")
    eta: float = option(DDPOOptions.eta, "Weight of DDIM's noise; here 0 is allowed.")
    pipeline_kwargs: dict[str, Any] | str | None = option(
        None, "Additional arguments for every call of the pipeline, as JSON: '{\"height\": 512}'."
    )
    batch_size: int = option(8, "Images made at once.")
    device: str = option("cpu", "Device, such as cuda.")
    output_dir: str = option("ddpo-samples", "Folder for the images and the sheet.")


def run(arguments: list[str]) -> int:
    """Run the command."""
    options: SampleOptions = parse_alone(SampleOptions, arguments, PROG, own={"prompts", "output_dir"})
    _check(options)
    _draw(options)
    return 0


def _check(options: SampleOptions) -> None:
    if options.seeds is not None and len(options.seeds) not in (1, len(options.prompts)):
        raise ConfigError(
            f"--seeds has {len(options.seeds)} values for {len(options.prompts)} prompts; give one, or one for each prompt."
        )
    if not all(prompt.strip() for prompt in options.prompts):
        raise ConfigError("--prompts has an empty prompt; every prompt must be a text that is not empty.")
    if options.batch_size < 1 or options.num_inference_steps < 1:
        raise ConfigError("--batch_size and --num_inference_steps must be at least 1.")


def _draw(options: SampleOptions) -> None:
    from ..model.loading import load_pipeline
    from ..model.stock import load_adapter
    from ..policy.stock import stock_images
    from ..runs.pictures.sheets import SampleSet, draw_sheet
    from .quiet import quiet_libraries

    quiet_libraries()
    settings = settings_of(options)
    seeds = options.seeds or list(range(len(options.prompts)))
    seeds = seeds * len(options.prompts) if len(seeds) == 1 else seeds
    pipeline = load_pipeline(options.model_name_or_path).to(options.device)
    rows = []
    switch = load_adapter(pipeline, options.adapter) if options.adapter else None
    for label in ("without", "with") if switch else ("without",):
        if switch:
            switch(label == "with")
        images = stock_images(pipeline, options.prompts, seeds, options.batch_size, settings)
        samples = SampleSet(options.prompts, seeds, images)
        samples.save(Path(options.output_dir) / label)
        rows.append((label, samples))
    sheet = Path(options.output_dir) / "sheet.png"
    draw_sheet(sheet, rows)
    print(sheet)
