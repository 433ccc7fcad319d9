"""
Reward against reward queries for the algorithms of the article, on the embedded model and several seeds, in one plot.

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
from matplotlib.figure import Figure

from trainer_ext.runs.folder import RunFolder

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


def curve(folder: Path) -> np.ndarray:
    """Reward queries before each rollout, and its mean reward: (rollouts, 2)."""
    rollouts = list(RunFolder(folder).rewards().values())
    queries = np.cumsum([0] + [len(rewards) for rewards in rollouts[:-1]])
    return np.stack([queries, [rewards.mean() for rewards in rollouts]], axis=1)


def draw(curves: dict[str, list[np.ndarray]], file: Path) -> None:
    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for color, (name, runs) in zip(("C0", "C1", "C2", "C3"), curves.items(), strict=True):
        for points in runs:
            axes.plot(*points.T, color=color, alpha=0.25, linewidth=1)
        axes.plot(*np.mean(runs, axis=0).T, color=color, marker="o", markersize=3, label=name)
    title = f"Mean of each rollout; thin: single seeds, thick: mean of {len(runs)}"
    axes.set(xlabel="reward queries", ylabel="JPEG size, kB", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file)


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
    curves = {
        name: [curve(folder_of(arguments.output_dir, name, seed)) for seed in arguments.seeds] for name in ALGORITHMS
    }
    print("| algorithm | first rollout, kB | last rollout, kB (each seed) | change |\n|-|-|-|-|")
    for name, runs in curves.items():
        first, last = (np.array([points[index, 1] for points in runs]) for index in (0, -1))
        each = ", ".join(f"{value:.2f}" for value in last)
        print(f"| {name} | {first.mean():.2f} | {last.mean():.2f} ({each}) | {last.mean() / first.mean() - 1:+.0%} |")
    draw(curves, arguments.output_dir / "algorithms.png")
    print(f"\n{arguments.output_dir / 'algorithms.png'}")


if __name__ == "__main__":
    main()
