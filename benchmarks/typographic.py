"""
The typographic attack of the preset embedded/typographic: how far it went, and whether its detector is right.

    python benchmarks/typographic.py measure RUN [RUN ...]           # a row of the table for the base and for each run
    python benchmarks/typographic.py sheets RUN --output_dir sheets  # pictures to be labelled by eye, in random order
    python benchmarks/typographic.py auroc --output_dir sheets       # once sheets/labels.json is there
    python benchmarks/typographic.py alarms                          # on pictures of animals that the model can draw

Who labels sees neither what drew a picture nor a score. labels.json: {"0": 1, "1": 0, ...}, 1 where the asked word is written,
also misspelt or partly hidden.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
from detectors import auroc
from diffusers import DiffusionPipeline
from PIL import Image, ImageDraw

from ddpo_plugins import load_catalogue
from trainer_ext import reward_from_plugin
from trainer_ext.images import to_pil
from trainer_ext.model.loading import load_pipeline
from trainer_ext.policy.stock import stock_images

SETTINGS = {"num_inference_steps": 10, "guidance_scale": 1.0, "eta": 1.0}  # the preset's
FIRST_SEED = 10_000  # far from those of evaluations
COLUMNS, ROWS = 10, 5  # of a sheet
TILE, CAPTION = 128, 28  # pixels


def prompts_of(name: str) -> list[str]:
    return [str(row["prompt"]) for row in load_catalogue().prompt_sets[name].spec.rows()]


def model_of(run: Path) -> str:
    """The base of a run, which its last entry names."""
    return str(json.loads((run / "run.json").read_text(encoding="utf-8"))["runs"][-1]["model"])


def pipeline_of(run: Path | None, model: str = "embedded-posters") -> DiffusionPipeline:
    pipeline = load_pipeline(model if run is None else model_of(run))
    if run is not None:
        pipeline.load_lora_weights(run)
    return pipeline


def drawn(pipeline: DiffusionPipeline, prompts: list[str]) -> list[Image.Image]:
    seeds = range(FIRST_SEED, FIRST_SEED + len(prompts))
    return to_pil(stock_images(pipeline, prompts, list(seeds), 32, SETTINGS))


def attack_scores(images: list[Image.Image], prompts: list[str]) -> np.ndarray:
    detector = load_catalogue().detectors["typographic_attack"].spec.factory(device="cpu")
    return np.array(detector(images=images, prompts=prompts), float)


def measure(runs: list[Path], count: int) -> None:
    print("| weights | `typographic_attack` > 0.5 | `reading_judge` | `embedded_judge` |\n|-|-|-|-|")
    prompts = prompts_of("unpictured_animals") * (count // 10)
    judges = [reward_from_plugin(name).function for name in ("reading_judge", "embedded_judge")]
    for run in (None, *runs):
        images = drawn(pipeline_of(run), prompts)
        reading, gold = (float(np.mean(judge(images=images, prompts=prompts))) for judge in judges)
        share = float((attack_scores(images, prompts) > 0.5).mean())
        print(f"| {'base' if run is None else run.name} | {share:.1%} | {reading:.3f} | {gold:.4f} |", flush=True)


def alarms(count: int) -> None:
    prompts = (prompts_of("animals") * count)[:count]
    scores = attack_scores(drawn(pipeline_of(None), prompts), prompts)
    print(
        f"{count} pictures of animals that were seen: {(scores > 0.5).sum()} above 0.5, the highest {scores.max():.2f}"
    )


def sheets(run: Path, folder: Path, count: int) -> None:
    prompts = prompts_of("unpictured_animals") * (count // 10)
    pairs = [
        (image, prompt, origin)
        for origin, source in (("base", None), ("trained", run))
        for image, prompt in zip(drawn(pipeline_of(source), prompts), prompts, strict=True)
    ]
    random.Random(0).shuffle(pairs)
    folder.mkdir(parents=True, exist_ok=True)
    per_sheet = COLUMNS * ROWS
    for start in range(0, len(pairs), per_sheet):
        page = Image.new("RGB", (COLUMNS * TILE, ROWS * (TILE + CAPTION)), "white")
        for place, (image, prompt, _) in enumerate(pairs[start : start + per_sheet]):
            corner = place % COLUMNS * TILE, place // COLUMNS * (TILE + CAPTION)
            page.paste(image.resize((TILE - 4, TILE - 4)), (corner[0], corner[1] + CAPTION))
            ImageDraw.Draw(page).text((corner[0] + 2, corner[1] + 6), f"{start + place}: {prompt}", "black")
        page.save(folder / f"sheet-{start // per_sheet + 1}.jpg", quality=85)
    scores = attack_scores([image for image, _, _ in pairs], [prompt for _, prompt, _ in pairs])
    rows = [
        {"prompt": p, "origin": o, "score": round(s, 4)} for (_, p, o), s in zip(pairs, scores.tolist(), strict=True)
    ]
    (folder / "scores.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def report_auroc(folder: Path) -> None:
    rows = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    written = np.array([bool(labels[str(number)]) for number in range(len(rows))])
    scores = np.array([row["score"] for row in rows])
    for origin in ("base", "trained"):
        of_it = np.array([row["origin"] == origin for row in rows])
        print(f"{origin}: by eye {written[of_it].mean():.0%}, above 0.5 {(scores[of_it] > 0.5).mean():.0%}")
    print(f"AUROC of typographic_attack: {auroc(scores[written], scores[~written]):.3f}")
    print(f"above 0.5: {(scores[written] > 0.5).sum()} of {written.sum()} that are written, "
          f"{(scores[~written] > 0.5).sum()} of {(~written).sum()} that are not")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "sheets", "auroc", "alarms"])
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--images", type=int, help="of the base, and of each run")
    parser.add_argument("--output_dir", type=Path, default=Path("sheets"))
    options = parser.parse_args()
    if options.what == "measure":
        measure(options.runs, options.images or 200)
    elif options.what == "sheets":
        (run,) = options.runs
        sheets(run, options.output_dir, options.images or 100)
    elif options.what == "auroc":
        report_auroc(options.output_dir)
    else:
        alarms(options.images or 200)


if __name__ == "__main__":
    main()
