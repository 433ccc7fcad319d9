"""
Does a run that is killed again and again end like one that is not? SIGKILL at random moments, the public command line.

    python benchmarks/soak.py [--kills 30] [--seed 0] [--output_dir soak]

One run of 10 updates is not stopped. Then the same run is started and killed, and resumed and killed, until it ends; and
that again, until there were so many kills. After every kill, the checkpoints that are whole are compared with those of the
run that was not stopped; at every end, everything is. Exits with 1 if anything differs.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from trainer_ext.runs.equality import checkpoint_differences, differences, whole_checkpoints

# 5 rollouts of 2 updates: half of the checkpoints hold a rollout in training. Every file that a run can write is written.
OPTIONS = {
    "num_train_epochs": 5,
    "num_inference_steps": 3,
    "skip_last_steps": 0,
    "num_images_per_rollout": 4,
    "num_images_per_prompt": 2,
    "rollout_batch_size": 2,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "timestep_fraction": 1.0,
    "stat_min_count": 2,
    "lr_scheduler_type": "linear",
    "ema_decay": 0.9,
    "num_sample_images": 1,
    "sample_every": 2,
    "eval_strategy": "epoch",
    "save_steps": 1,
    "disable_tqdm": True,
    "use_cpu": True,
}
KEEP_ALL, KEEP_FEW = 100, 2  # checkpoints of the run that is not killed, and of those that are

READY = "imports done"
# The imports take most of a short run; they are over when kills may begin.
COMMAND = f"""
import sys
import trainer_ext.trainer
from trainer_ext import cli
print({READY!r}, flush=True)
sys.exit(cli.main(sys.argv[1:]))
"""


@dataclass
class Attempt:
    """One run, from its first start to its end."""

    steps: list[int] = field(default_factory=list)  # of the newest whole checkpoint after each kill
    found: list[str] = field(default_factory=list)  # what differs
    starts: int = 0


class Soak:
    def __init__(self, folder: Path, prompts: Path):
        self.folder = folder
        self.prompts = prompts
        self.expected = folder / "whole"

    def start(self, folder: Path, keep: int, resume: bool, kill_after: float | None) -> float | None:
        """Train; return the seconds that it took from the imports on, or `None` if it was killed."""
        files = {"prompts": self.prompts, "eval_prompts": self.prompts, "output_dir": folder}
        options = {**OPTIONS, **files, "save_total_limit": keep}
        if resume:
            options["resume_from_checkpoint"] = True
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        with (self.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "train", *flags], stdout=subprocess.PIPE, stderr=log, text=True
            )
            with process:
                while (line := process.stdout.readline()) and line.strip() != READY:
                    pass
                begin = time.perf_counter()
                try:
                    process.communicate(timeout=kill_after)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                seconds = time.perf_counter() - begin
        if process.returncode == -signal.SIGKILL:
            return None
        if process.returncode:
            sys.exit(f"A run failed with {process.returncode}; see {self.folder / 'log.txt'}.")
        return seconds

    def attempt(self, folder: Path, kills: int, moments: random.Random, seconds: float) -> Attempt:
        """Kill a run at most `kills` times, then let it end."""
        result = Attempt()
        while True:
            # a third of a run, so that one is killed a few times on its way
            kill_after = moments.uniform(0, seconds / 3) if len(result.steps) < kills else None
            result.starts += 1
            ended = self.start(folder, KEEP_FEW, result.starts > 1, kill_after)
            result.found += (
                differences(folder, self.expected) if ended else checkpoint_differences(folder, self.expected)
            )
            if ended:
                return result
            newest = whole_checkpoints(folder)[-1:]
            result.steps.append(int(newest[0].removeprefix("checkpoint-")) if newest else 0)

    def run(self, kills: int, seed: int) -> list[Attempt]:
        """Run everything, and print a line for each run."""
        seconds = self.start(self.expected, KEEP_ALL, False, None)
        assert seconds is not None
        print(f"uninterrupted: {seconds:.1f} s after the imports\n", flush=True)
        print("| run | kills | newest checkpoint at each | resumes | equal |\n|-|-|-|-|-|", flush=True)
        moments, attempts = random.Random(seed), []
        while (done := sum(len(attempt.steps) for attempt in attempts)) < kills:
            folder = self.folder / f"killed-{len(attempts)}"
            attempt = self.attempt(folder, kills - done, moments, seconds)
            attempts.append(attempt)
            steps, resumes = " ".join(map(str, attempt.steps)), attempt.starts - 1
            equal = "yes" if not attempt.found else "no: " + "; ".join(attempt.found[:3])
            print(f"| {len(attempts)} | {len(attempt.steps)} | {steps} | {resumes} | {equal} |", flush=True)
            if not attempt.found:
                shutil.rmtree(folder)
        return attempts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path("soak"))
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    arguments.output_dir.mkdir(parents=True)
    prompts = arguments.output_dir / "prompts.txt"
    prompts.write_text("a cat\na dog\n")
    begin = time.perf_counter()
    attempts = Soak(arguments.output_dir, prompts).run(arguments.kills, arguments.seed)
    kills = sum(len(attempt.steps) for attempt in attempts)
    different = sum(bool(attempt.found) for attempt in attempts)
    print(
        f"\n{kills} kills in {len(attempts)} runs, {different} of them different, {time.perf_counter() - begin:.0f} s"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
