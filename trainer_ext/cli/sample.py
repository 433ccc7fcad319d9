"""`ddpo sample`: the same prompts and seeds with and without what a run has trained, by stock diffusers."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..options import DDPOOptions, described, option
from ..values import CheckedOptions
from .options import settings_of
from .parse import parse_alone
from .screens.starting import stage, started

if TYPE_CHECKING:
    import torch

    from ..runs.pictures.sheets import SampleSet
    from ..scoring.suite import RewardSuite

PROG = "ddpo sample"
SCORES_FILE = "scores.csv"


@described
@dataclass
class SampleOptions(CheckedOptions):
    """Options of `ddpo sample`: which images to make, and how."""

    adapter: str | None = option(
        None,
        "Folder or Hub id of a run, for a second row of images with what it trained. Its model, steps, guidance scale, eta and "
        "sampler are those of the run, unless they are given here.",
    )
    model_name_or_path: str = option("embedded", "Hub id or folder of the base pipeline.")
    prompts: list[str] = field(
        default_factory=lambda: ["a cat", "a dog", "a lion", "a butterfly"],
        metadata={"help": "Prompts, one image each."},
    )
    seeds: list[int] | None = option(None, "One seed for each prompt, or one for all; 0, 1, 2, ... by default.")
    num_inference_steps: int = option(DDPOOptions.num_inference_steps, "Denoising steps.")
    guidance_scale: float | None = option(DDPOOptions.guidance_scale, "Guidance scale; use that of training.")
    eta: float = option(DDPOOptions.eta, "Weight of DDIM's noise; here 0 is allowed.")
    sampler: str | None = option(
        None,
        "With 'own' the pipeline's own scheduler draws, as in training by 'awm' and 'nft'; otherwise DDIM, or for flow matching "
        "Euler's method.",
    )
    pipeline_kwargs: dict[str, Any] | str | None = option(
        None, "Additional arguments for every call of the pipeline, as JSON: '{\"height\": 512}'."
    )
    reward_funcs: list[str] | None = option(None, "Rewards by name that score the images; `ddpo rewards` lists them.")
    reward_kwargs: dict[str, Any] | str | None = option(
        None, 'Options of rewards by name, as JSON: \'{"my_reward": {"scale": 2}}\'.'
    )
    batch_size: int = option(8, "Images made at once.")
    device: str | None = option(None, "Device, such as cuda; by default the GPU if there is one.")
    output_dir: str = option("ddpo-samples", "Folder for the images and the sheet.")


def run(arguments: list[str]) -> int:
    """Run the command."""
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--adapter", *arguments]
    from .drawing.recorded import recorded_settings

    own = {"prompts", "output_dir", "reward_funcs", "reward_kwargs"}
    options: SampleOptions = parse_alone(SampleOptions, arguments, PROG, own, recorded={})
    recorded = None if options.adapter is None else recorded_settings(options.adapter)
    options = parse_alone(SampleOptions, arguments, PROG, own, recorded)
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
    from ..runs.pictures.sheets import SampleSet, draw_sheet
    from .drawing.suite import build_suite, default_device
    from .quiet import quiet_libraries

    quiet_libraries()
    device = options.device or default_device()
    stage("ddpo sample: loading the rewards and the model")
    suite = build_suite(options.reward_funcs, device, kwargs=options.reward_kwargs) if options.reward_funcs else None
    seeds = options.seeds or list(range(len(options.prompts)))
    seeds = seeds * len(options.prompts) if len(seeds) == 1 else seeds
    output, rows = Path(options.output_dir), {}
    for label, images in _drawn(options, device, seeds):
        rewards = [] if suite is None else _rewards(suite, images, options.prompts)
        rows[label] = SampleSet(options.prompts, seeds, images, rewards)
        rows[label].save(output / label)
    draw_sheet(output / "sheet.png", list(rows.items()))
    if suite is not None:
        print(_write_scores(output / SCORES_FILE, rows, suite))
    for label in rows:
        print(
            f"{output / label}   the images {label} what was trained"
            if len(rows) > 1
            else f"{output / label}   the images"
        )
    print(f"{output / 'sheet.png'}   all of them")


def _drawn(options: SampleOptions, device: str, seeds: Sequence[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the images without what was trained, and with it."""
    from ..file_names import PIPELINE_FILE
    from ..loop.progress.bars import StepBar
    from ..model.loading import load_pipeline
    from ..model.stock import load_adapter
    from ..policy.stock import stock_images
    from .drawing.recorded import newest_weights_of

    settings = settings_of(options)
    weights = newest_weights_of(options.adapter) if options.adapter else None
    pipeline = load_pipeline(options.model_name_or_path).to(device)
    trained = None
    if weights is not None and (Path(weights) / PIPELINE_FILE).is_file():
        trained = load_pipeline(weights).to(device)
    switch = load_adapter(pipeline, weights) if weights is not None and trained is None else lambda on: None
    started()
    steps = -(-len(seeds) // options.batch_size) * options.num_inference_steps
    for label in ("without", "with") if options.adapter else ("without",):
        switch(label == "with")
        drawing = trained if trained is not None and label == "with" else pipeline
        with StepBar(steps, f"pictures {label} what was trained" if options.adapter else "pictures", True) as bar:
            images = stock_images(
                drawing, options.prompts, seeds, options.batch_size, settings, bar.on_step, options.sampler
            )
        yield label, images


def _rewards(suite: RewardSuite, images: torch.Tensor, prompts: Sequence[str]) -> list[float]:
    return suite.score(images, [{"prompt": prompt} for prompt in prompts]).total.tolist()


def _write_scores(file: Path, rows: Mapping[str, SampleSet], suite: RewardSuite) -> str:
    """Write the reward of each image; return a sentence that compares them."""
    import numpy as np

    from ..runs.measures.paired import paired_figure

    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["prompt", "seed", *rows])
        first = next(iter(rows.values()))
        writer.writerows(zip(first.prompts, first.seeds, *(samples.rewards for samples in rows.values()), strict=True))
    values = np.array([samples.rewards for samples in rows.values()]).T
    values = values[~np.isnan(values).any(axis=1)]
    name = " + ".join(suite.names)
    if not len(values):
        return f"{name}: no image has a reward\n{file}   the rewards"
    figure = str(paired_figure(values)) if values.shape[1] > 1 else f"{values.mean():.4g}, mean of {len(values)}"
    return f"{name}: {figure}\n{file}   the rewards"
