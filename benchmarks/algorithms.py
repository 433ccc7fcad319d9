"""
Reward against reward queries for the algorithms of the article, on the embedded model and several seeds: in one plot, and on a
page with all runs beside one another.

    python benchmarks/algorithms.py [--seeds 0 1 2] [--output_dir algorithms] [--jobs 2] [options of ddpo train]

Finished runs in the output folder are not run again.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np

from trainer_ext.report.comparison_page import write_comparison
from trainer_ext.report.drawing.learning_curves import draw_curves, of_rollouts
from trainer_ext.report.facts import RunFacts

ALGORITHMS = {
    "DDPO-IS": ["embedded"],
    "DDPO-SF": ["embedded", "embedded/sf"],
    "RWR": ["embedded", "embedded/rwr"],
    "sparse RWR": ["embedded", "embedded/sparse_rwr"],
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def run(name: str, seed: int, output_dir: Path, options: list[str]) -> None:
    """Train, unless it is done."""
    folder = folder_of(output_dir, name, seed)
    if (folder / "pytorch_lora_weights.safetensors").is_file():
        return
    quiet = ["--num_sample_images", "0", "--save_strategy", "no", "--disable_tqdm", "true"]
    command = [sys.executable, "-m", "trainer_ext.cli", "train", "--preset", *ALGORITHMS[name], *quiet, *options]
    target = ["--seed", str(seed), "--output_dir", str(folder), "--resume_from_checkpoint", "true"]
    with (output_dir / f"{folder.name}.log").open("w") as log:
        subprocess.run([*command, *target], check=True, env={**os.environ, **ONE_THREAD}, stdout=log, stderr=log)


def folder_of(output_dir: Path, name: str, seed: int) -> Path:
    return output_dir / f"{name.replace(' ', '-')}-{seed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("algorithms"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, each with one thread")
    arguments, options = parser.parse_known_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = [
            pool.submit(run, name, seed, arguments.output_dir, options)
            for seed, name in product(arguments.seeds, ALGORITHMS)
        ]
        for job in jobs:
            job.result()
    folders = {name: [folder_of(arguments.output_dir, name, seed) for seed in arguments.seeds] for name in ALGORITHMS}
    curves = {name: [of_rollouts(RunFacts.read(folder)) for folder in runs] for name, runs in folders.items()}
    print("| algorithm | first rollout, kB | last rollout, kB (each seed) | change |\n|-|-|-|-|")
    for name, runs in curves.items():
        first, last = (np.array([run.values[index] for run in runs]) for index in (0, -1))
        each = ", ".join(f"{value:.2f}" for value in last)
        print(f"| {name} | {first.mean():.2f} | {last.mean():.2f} ({each}) | {last.mean() / first.mean() - 1:+.0%} |")
    picture, page = (arguments.output_dir / name for name in ("algorithms.png", "algorithms.html"))
    draw_curves(curves, "reward queries", "JPEG size, kB").savefig(picture, dpi=160)
    rows = [(folder, name) for name, runs in folders.items() for folder in runs]
    write_comparison([folder for folder, _ in rows], page, [name for _, name in rows])
    print(f"\n{picture}\n{page}")


if __name__ == "__main__":
    main()
