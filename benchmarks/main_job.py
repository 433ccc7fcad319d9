"""
How far, how fast: the main job on both JPEG rewards and several seeds, each in a process of its own.

    python benchmarks/main_job.py [--seeds 0 1 2] [--output_dir main-job]
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.summary import RunSummary

REWARDS = ("jpeg_incompressibility", "jpeg_compressibility")
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def mean_size(folder: Path, rollout: int) -> float:
    """Mean JPEG size of a rollout's images in kB; -1 is the last rollout."""
    return abs(float(list(RunFolder(folder).rewards().values())[rollout].mean()))


def run(reward: str, seed: int, folder: Path, options: list[str]) -> float:
    """Train and return the wall-clock seconds."""
    command = [sys.executable, "-m", "trainer_ext.cli", "train", "--reward_funcs", reward, "--seed", str(seed)]
    start = time.perf_counter()
    subprocess.run(
        [*command, "--output_dir", str(folder), "--disable_tqdm", "true", *options],
        check=True,
        env={**os.environ, **MALLOC},
    )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("main-job"))
    arguments, options = parser.parse_known_args()
    print(
        "| reward | seed | first rollout, kB | last rollout, kB | fixed samples (95 % interval) | wall, s |\n|-|-|-|-|-|-|"
    )
    for reward in REWARDS:
        for seed in arguments.seeds:
            folder = arguments.output_dir / f"{reward}-{seed}"
            seconds = run(reward, seed, folder, options)
            first, last = mean_size(folder, 0), mean_size(folder, -1)
            paired = RunSummary.of(RunFolder(folder)).paired
            print(f"| {reward} | {seed} | {first:.3f} | {last:.3f} | {paired} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
