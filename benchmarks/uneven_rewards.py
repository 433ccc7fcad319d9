"""
How long processes wait for one another's rewards: a rollout's own loop, whose sampling and rewards sleep as they are told.

    python benchmarks/uneven_rewards.py [--processes 2] [--fast 0.1] [--slow 1]

Nothing is computed, so that a busy machine changes little. In the row `one`, rewards take `slow` seconds an image in process 0
and `fast` in the others; in `in turn`, they are slow in one process after the other, batch by batch: all have the same to do.
Beside the measured seconds of the slowest process stands what a rollout would take if processes met only at its end (`own`), if
they met after each batch (`by batch`), and the mean of what they have to do.
"""

import argparse
import os
import subprocess
import sys
import time
from types import SimpleNamespace

BATCHES, IMAGES, STEPS, SAMPLING = (
    4,
    2,
    5,
    0.5,
)  # images of a batch in each process, denoising steps, seconds to sample a batch
HOW = ("one", "in turn")


def is_slow(how: str, process: int, batch: int, processes: int) -> bool:
    return process == 0 if how == "one" else batch % processes == process


def waits(how: str, fast: float, slow: float, processes: int) -> list[list[float]]:
    """Return the seconds of each process's batches."""
    return [
        [IMAGES * (slow if is_slow(how, process, batch, processes) else fast) for batch in range(BATCHES)]
        for process in range(processes)
    ]


def rollout_seconds(rewards: list[float]) -> float:
    """Return what a rollout takes whose batches are judged while the next ones are sampled."""
    return SAMPLING + sum(max(SAMPLING, reward) for reward in rewards[:-1]) + rewards[-1]


def roll_out(how: str, fast: float, slow: float) -> None:
    """In each process: make a rollout; the first one prints the seconds of the slowest."""
    import numpy as np
    import torch
    from accelerate import Accelerator
    from accelerate.utils import gather_object

    from trainer_ext.learning.fused.memory import ImageGradients
    from trainer_ext.loop.interrupts import StopRequest
    from trainer_ext.loop.lockstep import Lockstep
    from trainer_ext.rollouts.sampling import sample_and_score
    from trainer_ext.rollouts.schedule import SamplingPlan
    from trainer_ext.scoring.background import BackgroundScorer
    from trainer_ext.scoring.calls import Calls
    from trainer_ext.scoring.suite import Scores

    accelerator = Accelerator(cpu=True)
    lockstep, process = Lockstep(accelerator, StopRequest()), accelerator.process_index
    seconds = iter(waits(how, fast, slow, accelerator.num_processes)[process])

    def sample(batch, on_step):
        for step in range(STEPS):
            time.sleep(SAMPLING / STEPS)
            on_step(step)
        images = torch.zeros(IMAGES, 8, 8, 3, dtype=torch.uint8)
        return SimpleNamespace(images=images, trajectory=None), ImageGradients({"weight": torch.zeros(IMAGES, 1)})

    def score(images, rows):
        time.sleep(next(seconds))
        return Scores(("reward",), np.zeros((len(images), 1)), np.zeros(len(images)))

    batches = [SamplingPlan([{"prompt": "a cat"}], list(range(IMAGES)), IMAGES)] * BATCHES
    accelerator.wait_for_everyone()
    start = time.perf_counter()
    with lockstep.guarded():
        sample_and_score(
            sample=sample,
            num_steps=STEPS,
            batches=batches,
            score=score,
            scorer=BackgroundScorer(Calls()),
            keep=lambda first, images: None,
            on_first=lambda trajectory: None,
            on_step=lockstep.check,
            title=None,
        )
    slowest = max(gather_object([time.perf_counter() - start]))
    if process == 0:
        print(f"seconds {slowest}")


def measured(how: str, given: argparse.Namespace) -> float:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(given.processes)]
    command = [*launcher, __file__, "--how", how, "--fast", str(given.fast), "--slow", str(given.slow)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    (line,) = [line for line in found.stdout.splitlines() if line.startswith("seconds ")]
    return float(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--fast", type=float, default=0.1)
    parser.add_argument("--slow", type=float, default=1.0)
    parser.add_argument("--how", choices=HOW, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.how:
        roll_out(given.how, given.fast, given.slow)
        return
    print("| slow in | mean, s | own, s | by batch, s | measured, s |\n|-|-|-|-|-|")
    for how in HOW:
        each = waits(how, given.fast, given.slow, given.processes)
        own = [rollout_seconds(rewards) for rewards in each]
        by_batch = rollout_seconds([max(rewards) for rewards in zip(*each, strict=True)])
        mean = sum(own) / len(own)
        print(f"| {how} | {mean:.2f} | {max(own):.2f} | {by_batch:.2f} | {measured(how, given):.2f} |", flush=True)


if __name__ == "__main__":
    main()
