"""
How well the detectors tell apart: on images that are drawn here, whose label is known, and on the embedded model's samples.

    python benchmarks/detectors.py [--seed 1000] [--images 40] [--sizes 64 128 256 512] [--samples 200] [--output_dir detectors]

Writes Markdown tables, every score (scores.parquet), and a sheet of examples and of the worst judgements (sheet.png). Settings
were chosen with `--world tune`; the default world, "report", has other prompts, words and fonts.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from broken_images import broken_images, groups
from labelled_images import ATTACKS, FONTS, WRITTEN, Labelled, labelled_images
from matplotlib.figure import Figure
from PIL import Image

from ddpo_plugins import load_catalogue

Row = dict[str, object]  # detector, size, label, score, seconds; of texts also index, prompt, text, found


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive's score is above a negative's, ties half."""
    return float((positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean())


def precision_at_recall(positive: np.ndarray, negative: np.ndarray, recall: float = 0.95) -> float:
    """Share of positives among what scores at least as much as the best `recall` of the positives."""
    threshold = np.sort(positive)[len(positive) - int(np.ceil(recall * len(positive)))]
    found, wrong = (positive >= threshold).sum(), (negative >= threshold).sum()
    return float(found / (found + wrong))


class Judge:
    """Calls one detector, and remembers what it said and the CPU time that it took."""

    def __init__(self, name: str):
        self.name = name
        self.function: Callable[..., list[float | None]] = load_catalogue().detectors[name].spec.factory(device="cpu")
        self.rows: list[Row] = []

    def __call__(self, images: list[Image.Image], prompts: list[str], size: int, label: str, **more: object) -> None:
        extras: dict[str, list[object]] = {}
        start = time.process_time()
        scores = self.function(images=images, prompts=prompts, log_extra=extras.__setitem__)
        seconds = (time.process_time() - start) / len(images)
        found = {name.split("/")[1]: str(values[0]) for name, values in extras.items()} if len(images) == 1 else {}
        row = {"detector": self.name, "size": size, "label": label, "seconds": seconds, "found": str(found), **more}
        self.rows += [{**row, "score": score} for score in scores]

    def scores(self, size: int, *labels: str) -> np.ndarray:
        return np.array([row["score"] for row in self.rows if row["size"] == size and row["label"] in labels], float)

    def milliseconds(self, size: int) -> float:
        return 1000 * float(np.mean([row["seconds"] for row in self.rows if row["size"] == size]))

    def print_row(self, size: int, labels: tuple[str, ...], against: tuple[str, ...]) -> None:
        positive, negative = self.scores(size, *labels), self.scores(size, *against)
        quality = f"{auroc(positive, negative):.3f} | {precision_at_recall(positive, negative):.3f}"
        counts = f"{len(positive)}, {len(negative)}"
        names = f"{', '.join(labels)} | {', '.join(against)}"
        print(
            f"| `{self.name}` | {size} | {names} | {counts} | {quality} | {self.milliseconds(size):.0f} |", flush=True
        )


def judge_texts(images: list[Labelled], sizes: list[int]) -> list[Judge]:
    """The second detector's time is without reading: it asks about what the first has just had read."""
    attack, text = Judge("typographic_attack"), Judge("rendered_text")
    for size in sizes:
        for index, one in enumerate(images):
            for detector in (attack, text):
                detector([one.at(size)], [one.prompt], size, one.label, index=index, prompt=one.prompt, text=one.text)
        for labels in [*((label,) for label in ATTACKS), ATTACKS]:
            attack.print_row(size, labels, ("none", "unrelated"))
        text.print_row(size, WRITTEN, ("none",))
    return [attack, text]


def judge_pictures(seed: int, number: int, sizes: list[int]) -> list[Judge]:
    blank, alike = Judge("blank_or_noise"), Judge("low_diversity")
    for size in sizes:
        kinds = broken_images(seed, number, size)
        for label, images in kinds.items():
            for image in images:
                blank([image], [""], size, label)
        for label in list(kinds)[1:]:
            blank.print_row(size, (label,), ("picture",))
        made = groups(seed, number, size)
        for label, several in made.items():
            for images in several:
                alike(images, [""] * len(images), size, label)
        for label in ("equal", "nearly equal"):
            alike.print_row(size, (label,), ("independent",))
    return [blank, alike]


def judge_samples(folder: Path, seed: int, number: int) -> list[Judge]:
    """False alarms on what the embedded model draws, which has no text in it."""
    catalogue = load_catalogue()
    names = ("animals", "animal_activities", "counting")
    prompts = [str(row["prompt"]) for name in names for row in catalogue.prompt_sets[name].spec.rows()]
    prompts = [str(prompt) for prompt in np.random.default_rng(seed).choice(prompts, number, replace=False)]
    command = [
        sys.executable,
        "-m",
        "trainer_ext.cli",
        "sample",
        "--num_inference_steps",
        "10",
        "--output_dir",
        str(folder),
    ]
    seeds = [str(seed + index) for index in range(number)]
    subprocess.run([*command, "--prompts", *prompts, "--seeds", *seeds], check=True, stdout=subprocess.DEVNULL)
    files = sorted((folder / "without").glob("*.png"), key=lambda file: int(file.stem))
    images = [Image.open(file).convert("RGB") for file in files]
    judges = [Judge(name) for name in ("typographic_attack", "rendered_text", "blank_or_noise")]
    print("\n| detector | samples | highest score | above 0.5 |\n|-|-|-|-|")
    for judge in judges:
        for index, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            judge([image], [prompt], 64, "sample", index=index, prompt=prompt)
        scores = judge.scores(64, "sample")
        print(f"| `{judge.name}` | {number} | {scores.max():.2f} | {(scores > 0.5).sum()} |", flush=True)
    return judges


def draw_sheet(file: Path, images: list[Labelled], judge: Judge, sizes: list[int]) -> None:
    """Write examples of each class; below them, for each size, attacks with the lowest scores and others with the highest."""
    rows = [("examples", [row for row in judge.rows if row["size"] == sizes[0] and int(str(row["index"])) < 10])]
    for size in sizes:
        at_size = sorted((row for row in judge.rows if row["size"] == size), key=lambda row: float(str(row["score"])))
        missed = [row for row in at_size if row["label"] in ATTACKS][:10]
        alarms = [row for row in at_size if row["label"] not in ATTACKS][::-1][:10]
        rows += [(f"{size} px, lowest attacks", missed), (f"{size} px, highest others", alarms)]
    figure = Figure(figsize=(18, 2.3 * len(rows)), dpi=70, layout="constrained")
    grid = figure.subplots(len(rows), 10, squeeze=False)
    for axes, (title, shown) in zip(grid, rows, strict=True):
        for place in axes:
            place.axis("off")
        for place, row in zip(axes, shown, strict=False):
            place.imshow(images[int(str(row["index"]))].at(int(str(row["size"]))), interpolation="nearest")
            place.set_title(f"{row['label']}, {row['score']:.2f}\n{row['prompt']}", fontsize=8)
        axes[0].set_title(f"{title}\n{axes[0].get_title()}", fontsize=8)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=FONTS, default="report")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--images", type=int, default=40, help="of each class")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--samples", type=int, default=200, help="of the embedded model; 0 for none")
    parser.add_argument("--output_dir", type=Path, default=Path("detectors"))
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    images = labelled_images(options.world, options.seed, options.images)
    print(
        "| detector | px | found | against | images | AUROC | precision at 95 % recall | CPU, ms an image |\n"
        + "|-" * 8
        + "|"
    )
    judges = [*judge_texts(images, options.sizes), *judge_pictures(options.seed, options.images, options.sizes)]
    draw_sheet(options.output_dir / "sheet.png", images, judges[0], options.sizes)
    if options.samples:
        judges += judge_samples(options.output_dir / "samples", options.seed, options.samples)
    pq.write_table(
        pa.Table.from_pylist([row for judge in judges for row in judge.rows]), options.output_dir / "scores.parquet"
    )


if __name__ == "__main__":
    main()
