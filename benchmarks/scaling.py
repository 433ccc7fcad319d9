"""
Images per second of the embedded model's training with one, two and four processes, beside the ideal.

    python benchmarks/scaling.py [--processes 1 2 4] [--output_dir scaling] [OPTIONS of ddpo train]

The work is the same each time: a rollout of 64 images, and one update on it. On a machine without GPUs each process computes in
one thread, so that more processes than cores gain nothing; on one with several GPUs, give --processes 1 2 4 8.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from commands import check_new, run
from two_processes import IMAGES, OPTIONS, images_per_second


def train(processes: int, folder: Path, options: list[str]) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    launcher = [sys.executable, *(torchrun if processes > 1 else [])]
    cpu = ["--use_cpu", "true", *(["--ddp_backend", "gloo"] if processes > 1 else [])]
    batch = [
        "--per_device_train_batch_size",
        str(IMAGES // processes),
        "--rollout_batch_size",
        str(IMAGES // processes),
    ]
    command = [*launcher, "-m", "trainer_ext.cli", "train", *OPTIONS, *batch, "--output_dir", str(folder), *options]
    run(command + (cpu if not torch.cuda.is_available() else []), {**os.environ, "OMP_NUM_THREADS": "1"}, shows=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("scaling"))
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    arguments, options = parser.parse_known_args()
    folders = {processes: arguments.output_dir / str(processes) for processes in arguments.processes}
    check_new(folders.values())
    print(f"{os.cpu_count()} cores, {torch.cuda.device_count()} GPUs")
    print("| processes | images/s | ideal | efficiency |\n|-|-|-|-|")
    first = 0.0
    for processes, folder in folders.items():
        train(processes, folder, options)
        speed = images_per_second(folder)
        first = first or speed / processes
        ideal = first * processes
        print(f"| {processes} | {speed:.2f} | {ideal:.2f} | {speed / ideal:.0%} |", flush=True)


if __name__ == "__main__":
    main()
