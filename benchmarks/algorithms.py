"""
Reward against reward queries and against CPU seconds for all algorithms, on the embedded model, two rewards and several seeds:
in plots, and on a page with all runs beside one another.

    python benchmarks/algorithms.py [--seeds 0 1 2] [--output_dir algorithms] [--jobs 2] [--tasks ...] [options of ddpo train]

Finished runs in the output folder are not run again.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np

from trainer_ext.report.comparison_page import write_comparison
from trainer_ext.report.drawing.learning_curves import Curve, draw_curves, of_rollouts
from trainer_ext.report.facts import RunFacts

TASKS = {"incompressibility": [], "aesthetic": ["embedded/aesthetic"]}
ALGORITHMS = {
    "DDPO-IS": [],
    "DDPO-SF": ["embedded/sf"],
    "RWR": ["embedded/rwr"],
    "sparse RWR": ["embedded/sparse_rwr"],
    "AWM": ["embedded/awm"],
    "NFT": ["embedded/nft"],
}
UNITS = {"incompressibility": "JPEG size, kB", "aesthetic": "embedded_aesthetic"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def run(task: str, name: str, seed: int, output_dir: Path, options: list[str]) -> None:
    """Train, unless it is done, and note the CPU seconds that it took."""
    folder = folder_of(output_dir, task, name, seed)
    if cpu_file(folder).is_file():
        return
    quiet = ["--num_sample_images", "0", "--save_strategy", "no", "--eval_strategy", "no", "--disable_tqdm", "true"]
    presets = ["embedded", *TASKS[task], *ALGORITHMS[name]]
    command = [sys.executable, "-m", "trainer_ext.cli", "train", "--preset", *presets, *quiet, *options]
    target = ["--seed", str(seed), "--output_dir", str(folder)]
    with (output_dir / f"{folder.name}.log").open("w") as log:
        process = subprocess.Popen([*command, *target], env={**os.environ, **ONE_THREAD}, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{folder.name} failed; see {log.name}")
    cpu_file(folder).write_text(json.dumps(usage.ru_utime + usage.ru_stime))


def folder_of(output_dir: Path, task: str, name: str, seed: int) -> Path:
    return output_dir / f"{task}-{name.replace(' ', '-')}-{seed}"


def cpu_file(folder: Path) -> Path:
    return folder / "cpu_seconds.json"


def over_seconds(curve: Curve, folder: Path) -> Curve:
    """Spread the CPU seconds of a whole run evenly over its reward queries; loading is a small part of them."""
    return Curve(curve.places / curve.places[-1] * json.loads(cpu_file(folder).read_text()), curve.values)


def print_table(curves: Mapping[str, Sequence[Curve]], folders: Mapping[str, Sequence[Path]]) -> None:
    print("| algorithm | first rollout | last rollout (each seed) | change | CPU seconds |\n|-|-|-|-|-|")
    for name, runs in curves.items():
        first, last = (np.array([run.values[index] for run in runs]) for index in (0, -1))
        each = ", ".join(f"{value:.3g}" for value in last)
        seconds = np.mean([json.loads(cpu_file(folder).read_text()) for folder in folders[name]])
        change = last.mean() - first.mean()
        print(f"| {name} | {first.mean():.3g} | {last.mean():.3g} ({each}) | {change:+.3g} | {seconds:.0f} |")


def compare(task: str, output_dir: Path, seeds: Sequence[int]) -> None:
    """Print a table of a task's runs, draw them over queries and over CPU seconds, and write the page."""
    folders = {name: [folder_of(output_dir, task, name, seed) for seed in seeds] for name in ALGORITHMS}
    curves = {name: [of_rollouts(RunFacts.read(folder)) for folder in runs] for name, runs in folders.items()}
    print(f"\n{task}\n")
    print_table(curves, folders)
    seconds = {
        name: [over_seconds(*pair) for pair in zip(runs, folders[name], strict=True)] for name, runs in curves.items()
    }
    for label, drawn in (("reward queries", curves), ("CPU seconds", seconds)):
        picture = output_dir / f"{task}-{label.split()[-1]}.png"
        draw_curves(drawn, label, UNITS[task]).savefig(picture, dpi=160)
        print(picture)
    page, rows = output_dir / f"{task}.html", [(folder, name) for name, runs in folders.items() for folder in runs]
    write_comparison([folder for folder, _ in rows], page, [name for _, name in rows])
    print(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--output_dir", type=Path, default=Path("algorithms"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, each with one thread")
    arguments, options = parser.parse_known_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = [
            pool.submit(run, task, name, seed, arguments.output_dir, options)
            for seed, task, name in product(arguments.seeds, arguments.tasks, ALGORITHMS)
        ]
        for job in jobs:
            job.result()
    for task in arguments.tasks:
        compare(task, arguments.output_dir, arguments.seeds)


if __name__ == "__main__":
    main()
