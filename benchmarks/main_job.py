"""
How far, how fast: the main job on both JPEG rewards and several seeds, each in a process of its own.

    python benchmarks/main_job.py [--seeds 0 1 2] [--output_dir main-job]
"""

import argparse
import os
import sys
import time
from pathlib import Path

from commands import check_new, run

from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.summary import RunSummary

REWARDS = ("jpeg_incompressibility", "jpeg_compressibility")
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def mean_size(folder: Path, rollout: int) -> float:
    """Mean JPEG size of a rollout's images in kB; -1 is the last rollout."""
    return abs(float(list(RunFolder(folder).rewards().values())[rollout].mean()))


def paired_change(folder: Path) -> str:
    """How the fixed prompts and seeds changed, in kB; a compressibility reward is minus the size."""
    paired = RunSummary.of(RunFolder(folder)).paired
    assert paired is not None
    sign = -1 if paired.before < 0 else 1
    low, high = sorted((sign * paired.low, sign * paired.high))
    return f"{sign * paired.difference / abs(paired.before):+.1%} ({low:+.2f} to {high:+.2f})"


def train(reward: str, seed: int, folder: Path, options: list[str]) -> float:
    """Train and return the wall-clock seconds."""
    command = [sys.executable, "-m", "trainer_ext.cli", "train", "--reward_funcs", reward, "--seed", str(seed)]
    start = time.perf_counter()
    run([*command, "--output_dir", str(folder), "--disable_tqdm", "true", *options], {**os.environ, **MALLOC})
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("main-job"))
    arguments, options = parser.parse_known_args()
    folders = {
        (reward, seed): arguments.output_dir / f"{reward}-{seed}" for reward in REWARDS for seed in arguments.seeds
    }
    check_new(folders.values())
    print(
        "| reward | seed | first rollout, kB | last rollout, kB | change | fixed samples: change (95 % interval, kB) | wall, s |"
    )
    print("|-|-|-|-|-|-|-|")
    for (reward, seed), folder in folders.items():
        seconds = train(reward, seed, folder, options)
        first, last = mean_size(folder, 0), mean_size(folder, -1)
        row = [reward, seed, f"{first:.2f}", f"{last:.2f}", f"{last / first - 1:+.1%}", paired_change(folder)]
        print("|", " | ".join(map(str, [*row, f"{seconds:.0f}"])), "|", flush=True)


if __name__ == "__main__":
    main()
