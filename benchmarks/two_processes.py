"""
What a second process changes: the embedded model trained by one process and by two, with the same images an update.

    python benchmarks/two_processes.py [--output_dir two-processes] [OPTIONS of ddpo train]

Both make one update on each rollout, so that they should differ by rounding alone. Each process computes in one thread.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from commands import check_new, run
from safetensors.numpy import load_file

from trainer_ext.runs.folder import RunFolder

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
LAUNCHERS = {1: [sys.executable], 2: TORCHRUN}
IMAGES = 64  # of a rollout, and of the update on it
OPTIONS = f"""--reward_funcs jpeg_incompressibility --num_train_epochs 5 --num_images_per_rollout {IMAGES} --rollout_batch_size 32
    --gradient_accumulation_steps 1 --timestep_fraction 1.0 --num_sample_images 0 --disable_tqdm true --save_strategy epoch
    --save_total_limit 1""".split()


def train(processes: int, folder: Path, options: list[str]) -> float:
    """Return the wall-clock seconds."""
    several = ["--use_cpu", "true"] + (["--ddp_backend", "gloo"] if processes > 1 else [])
    batch = ["--per_device_train_batch_size", str(IMAGES // processes)]
    command = [*LAUNCHERS[processes], "-m", "trainer_ext.cli", "train", *OPTIONS, *several, *batch]
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run([*command, "--output_dir", str(folder), *options], environment, shows=False)
    return time.perf_counter() - start


def images_per_second(folder: Path) -> float:
    """Sampled, scored and trained on, without the first rollout, which warms up."""
    logs = [log for log in RunFolder(folder).logs() if "seconds/rollout" in log][1:]
    seconds = sum(log[f"seconds/{part}"] for log in logs for part in ("rollout", "reward_wait", "training"))
    return IMAGES * len(logs) / seconds


def weights(folder: Path) -> np.ndarray:
    state = load_file(folder / "pytorch_lora_weights.safetensors")
    return np.concatenate([state[name].ravel() for name in sorted(state)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("two-processes"))
    arguments, options = parser.parse_known_args()
    folders = {processes: arguments.output_dir / str(processes) for processes in LAUNCHERS}
    check_new(folders.values())
    seconds = {processes: train(processes, folder, options) for processes, folder in folders.items()}
    print(
        "| rollout | seeds and prompts | mean reward, 1 process | 2 processes | images whose reward differs | by at most |"
    )
    print("|-|-|-|-|-|-|")
    runs = [RunFolder(folder) for folder in folders.values()]
    indices = runs[0].rollouts()
    for index in indices:
        one, two = (run.records(index) for run in runs)
        places = [[(record["seed"], record["prompt"]) for record in records] for records in (one, two)]
        same = "same" if places[0] == places[1] else "DIFFERENT"
        first, second = (np.array([record["reward"] for record in records]) for records in (one, two))
        apart = np.abs(first - second)
        means = f"{first.mean():.6f} | {second.mean():.6f}"
        print(f"| {index} | {same} | {means} | {(apart > 0).sum()} of {len(apart)} | {apart.max():.3f} |")
    one, two = weights(folders[1]), weights(folders[2])
    print(
        f"\nadapters after {len(indices)} updates: {np.linalg.norm(one - two) / np.linalg.norm(one):.1e} apart, relative"
    )
    for processes, taken in seconds.items():
        print(
            f"{processes} process(es): {images_per_second(folders[processes]):.2f} images/s; {taken:.0f} s with imports"
        )


if __name__ == "__main__":
    main()
