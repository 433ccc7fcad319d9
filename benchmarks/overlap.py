"""
What is gained by scoring a batch while the next is sampled: the embedded model's rollouts, with rewards of several kinds.

    python benchmarks/overlap.py [--output_dir overlap] [--rollouts 5]

Each reward takes as long for a batch as its sampling takes, which is measured first. It runs both ways in turn, in this one
process; torch computes in one thread. The first rollout of each way is not counted. With 8 batches, the most that can be gained
is 16 / 9 = 1.78: only the first batch's sampling and the last one's rewards have nothing beside them.
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer_ext import DDPOConfig, DDPOTrainer, prompts_from_plugin
from trainer_ext.cli.quiet import quiet_libraries

OPTIONS = {
    "num_inference_steps": 5,
    "guidance_scale": 1.0,
    "num_images_per_rollout": 16,
    "rollout_batch_size": 2,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "timestep_fraction": 0.2,
    "num_sample_images": 0,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}
Reward = Callable[..., Any]


def free(images: Any, prompts: list[str], **columns: Any) -> list[float]:
    return [0.0] * len(images)


def server(seconds: float) -> Reward:
    def server(images: Any, prompts: list[str], **columns: Any) -> list[float]:
        time.sleep(seconds)
        return [0.0] * len(images)

    return server


def async_server(seconds: float) -> Reward:
    async def server(images: Any, prompts: list[str], **columns: Any) -> list[float]:
        await asyncio.sleep(seconds)
        return [0.0] * len(images)

    return server


def multiply() -> None:
    """Computes without Python's lock."""
    torch.ones(512, 512) @ torch.ones(512, 512)


def add() -> None:
    """Computes with Python's lock."""
    sum(range(100_000))


def computing(unit: Callable[[], None], seconds: float) -> Reward:
    """Return a reward that does, for each batch, what takes this process that long when it does nothing else."""
    start, units = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        unit()
        units += 1

    def reward(images: Any, prompts: list[str], **columns: Any) -> list[float]:
        for _ in range(units):
            unit()
        return [0.0] * len(images)

    return reward


REWARDS: dict[str, Callable[[float], Reward]] = {
    "a server": server,
    "a server, `async def`": async_server,
    "a torch model on the CPU": lambda seconds: computing(multiply, seconds),
    "pure Python": lambda seconds: computing(add, seconds),
}


def rollout_seconds(folder: Path, reward: Reward, rollouts: int, overlap: bool) -> float:
    """Return the mean seconds of a rollout with its rewards."""
    config = DDPOConfig(output_dir=str(folder), num_train_epochs=rollouts + 1, overlap_rewards=overlap, **OPTIONS)
    trainer = DDPOTrainer("embedded", reward, config, prompts_from_plugin("animals"))
    trainer.train()
    logs = [log for log in trainer.state.log_history if "seconds/rollout" in log][1:]
    return sum(log["seconds/rollout"] + log["seconds/reward_wait"] for log in logs) / len(logs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("overlap"))
    parser.add_argument("--rollouts", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    folder, rollouts = arguments.output_dir, arguments.rollouts
    sampling = rollout_seconds(folder / "free", free, rollouts, False)
    batches = OPTIONS["num_images_per_rollout"] // OPTIONS["rollout_batch_size"]
    print(f"sampling alone: {sampling:.2f} s a rollout of {batches} batches")
    print("| reward | one after the other, s | at the same time, s | ratio |")
    print("|-|-|-|-|")
    for name, make in REWARDS.items():
        reward = make(sampling / batches)
        sequential, overlapped = (
            rollout_seconds(folder / name / str(overlap), reward, rollouts, overlap) for overlap in (False, True)
        )
        print(f"| {name} | {sequential:.2f} | {overlapped:.2f} | {sequential / overlapped:.2f} |", flush=True)


if __name__ == "__main__":
    main()
