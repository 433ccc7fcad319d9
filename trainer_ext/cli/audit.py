"""`ddpo audit`: what cheating pays, before training."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..options import DDPOOptions, described, option
from ..values import CheckedOptions
from .options import settings_of
from .parse import parse_alone

if TYPE_CHECKING:
    from datasets import Dataset

    from ..audit.examine import Audit

PROG = "ddpo audit"
NAME_WIDTH = 31


@described
@dataclass
class AuditOptions(CheckedOptions):
    """Options of `ddpo audit`: the reward to examine, and the pictures to examine it on."""

    reward_funcs: list[str] | None = option(None, "Rewards by name; `ddpo rewards` lists them. Several are summed.")
    reward_weights: list[float] | None = option(None, "Weight of each reward in the sum; 1 by default.")
    reward_kwargs: dict[str, Any] | str | None = option(
        None, 'Options of rewards and detectors by name, as JSON: \'{"my_reward": {"scale": 2}}\'.'
    )
    detectors: list[str] | None = option(None, "Detectors by name: which cheats do they see?")
    detector_weights: list[float] | None = option(
        None, "Weight with which each detector is added to the reward, as in training; a penalty is negative."
    )
    model_name_or_path: str = option("embedded", "Hub id or folder of the pipeline that draws the honest pictures.")
    prompts: str = option("animals", "Prompts, as in `ddpo train`.")
    num_prompts: int = option(16, "Number of prompts, taken at even distances, with one picture each.")
    num_inference_steps: int = option(DDPOOptions.num_inference_steps, "Denoising steps.")
    guidance_scale: float = option(DDPOOptions.guidance_scale, "Guidance scale.")
    eta: float = option(DDPOOptions.eta, "Weight of DDIM's noise.")
    pipeline_kwargs: dict[str, Any] | str | None = option(
        None, "Additional arguments for every call of the pipeline, as JSON: '{\"height\": 512}'."
    )
    batch_size: int = option(8, "Pictures drawn at once.")
    device: str | None = option(
        None, "Device of the pipeline and the rewards, such as cuda; by default the GPU if there is one."
    )
    json: bool = option(False, "Print JSON, for machines.")
    output: str | None = option(None, "File for a sheet with a picture of each cheat, such as audit.png.")


def run(arguments: list[str]) -> int:
    """Run the command."""
    named = next((index for index, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    if named:
        arguments = ["--reward_funcs", *arguments]
    options: AuditOptions = parse_alone(AuditOptions, arguments, PROG, own={"reward_funcs"})
    _check(options)
    _audit(options)
    return 0


def _check(options: AuditOptions) -> None:
    if not options.reward_funcs:
        raise ConfigError("No reward is named; write `ddpo audit NAME`. `ddpo rewards` lists those that are installed.")
    if options.num_prompts < 2 or options.batch_size < 1 or options.num_inference_steps < 1:
        raise ConfigError(
            f"--num_prompts is {options.num_prompts}, --batch_size {options.batch_size} and --num_inference_steps "
            f"{options.num_inference_steps}; at least 2, 1 and 1 are needed."
        )


def _audit(options: AuditOptions) -> None:
    from ..audit.examine import audit, num_steps
    from ..audit.findings import to_dict
    from ..plugins import installed_plugins
    from .drawing.suite import build_suite, default_device
    from .prompts import load_prompts
    from .quiet import quiet_libraries

    quiet_libraries()
    catalogue = installed_plugins()
    rows = _rows(load_prompts(options.prompts, catalogue), options.num_prompts)
    device = options.device or default_device()
    suite = build_suite(
        options.reward_funcs or [],
        device,
        options.reward_weights,
        options.detectors or [],
        options.detector_weights,
        options.reward_kwargs,
    )
    images = _draw(options, device, [row["prompt"] for row in rows])
    with _bar(num_steps(), "cheats") as bar:
        result = audit(suite, images, rows, bar.update)
    if options.json:
        print(json.dumps(to_dict(result), indent=2))
    else:
        _print(result, options, len(rows))
    if options.output is not None:
        _draw_sheet(Path(options.output), result)


def _rows(prompts: Dataset, number: int) -> list[dict[str, Any]]:
    from ..columns import rows_with_different

    return [dict(prompts[row]) for row in rows_with_different(prompts, "prompt", number)]


def _draw(options: AuditOptions, device: str, prompts: Sequence[str]) -> Any:
    import torch

    from ..model.loading import load_pipeline
    from ..policy.stock import stock_images

    settings = settings_of(options)
    pipeline = load_pipeline(options.model_name_or_path).to(device)
    size, images = options.batch_size, []
    with _bar(len(prompts), "pictures") as bar:
        for first in range(0, len(prompts), size):
            part = prompts[first : first + size]
            images.append(stock_images(pipeline, part, range(first, first + len(part)), size, settings))
            bar.update(len(part))
    return torch.cat(images)


def _bar(total: int, name: str) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=name, leave=False, disable=not sys.stderr.isatty())


def _print(result: Audit, options: AuditOptions, number: int) -> None:
    from ..audit.examine import HONEST
    from ..audit.findings import findings
    from ..audit.payments import CONFIDENCE

    print(f"{' + '.join(options.reward_funcs or [])} on {number} prompts of {options.prompts!r}\n")
    print(_line(f"difference ({CONFIDENCE:.1%} interval)", "", "reward", list(result.detections)))
    for name, each in {HONEST: None, **result.payments}.items():
        seen = [f"{values[name]:>{len(detector)}.2f}" for detector, values in result.detections.items()]
        reward = float(result.honest[result.honest == result.honest].mean()) if each is None else each.reward
        print(_line("" if each is None else str(each), name, f"{reward:.4g}", seen))
    print("\n" + "\n".join(findings(result)))


def _line(difference: str, name: str, reward: str, seen: Sequence[str]) -> str:
    return f"{name:<{NAME_WIDTH}}{reward:>9}  {difference:<34}{'  '.join(seen)}".rstrip()


def _draw_sheet(file: Path, result: Audit) -> None:
    import numpy as np
    import torch

    from ..audit.examine import HONEST
    from ..runs.pictures.sheets import SampleSet, draw_sheet

    names = [HONEST, *result.payments]
    images = torch.from_numpy(np.stack([np.array(result.sheet[name]) for name in names]))
    means = [float(np.nanmean(result.honest)), *(each.reward for each in result.payments.values())]
    draw_sheet(file, [("mean reward", SampleSet(names, [], images, means))])
    print(file)
