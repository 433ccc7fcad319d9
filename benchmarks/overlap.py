"""
What is gained by scoring a batch while the next is sampled: the embedded model's rollouts, with rewards of several kinds.

    python benchmarks/overlap.py [--output_dir overlap] [--rollouts 3]

Each reward runs both ways in turn, in this one process and in one thread each; the first rollout of each way is not counted. At
best, sampling and rewards take as long as the longer of the two, and the first batch's sampling or the last one's rewards.
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer_ext import DDPOConfig, DDPOTrainer, prompts_from_plugin
from trainer_ext.quiet import quiet_libraries

SECONDS = 0.5  # of a reward for a batch
OPTIONS = {
    "num_inference_steps": 10,
    "guidance_scale": 1.0,
    "num_images_per_rollout": 64,
    "rollout_batch_size": 8,
    "per_device_train_batch_size": 64,
    "gradient_accumulation_steps": 1,
    "timestep_fraction": 0.1,
    "num_sample_images": 0,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}
Reward = Callable[..., Any]


def server(images: Any, prompts: list[str], **columns: Any) -> list[float]:
    time.sleep(SECONDS)
    return [0.0] * len(images)


async def async_server(images: Any, prompts: list[str], **columns: Any) -> list[float]:
    await asyncio.sleep(SECONDS)
    return [0.0] * len(images)


async def another_async_server(images: Any, prompts: list[str], **columns: Any) -> list[float]:
    return await async_server(images, prompts)


def multiply() -> None:
    """Computes without Python's lock."""
    torch.ones(512, 512) @ torch.ones(512, 512)


def add() -> None:
    """Computes with Python's lock."""
    sum(range(100_000))


def computing(unit: Callable[[], None]) -> Reward:
    """Return a reward that does, for each batch, what takes this process that long when it does nothing else."""
    start, units = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        unit()
        units += 1

    def reward(images: Any, prompts: list[str], **columns: Any) -> list[float]:
        for _ in range(units):
            unit()
        return [0.0] * len(images)

    return reward


REWARDS: dict[str, list[Callable[[], Reward]]] = {
    "a server": [lambda: server],
    "two servers, `async def`": [lambda: async_server, lambda: another_async_server],
    "a torch model on the CPU": [lambda: computing(multiply)],
    "pure Python": [lambda: computing(add)],
}


def rollout_seconds(folder: Path, rewards: list[Reward], rollouts: int, overlap: bool) -> tuple[float, float]:
    """Return the mean seconds of a rollout with its rewards, and of its sampling."""
    config = DDPOConfig(output_dir=str(folder), num_train_epochs=rollouts + 1, overlap_rewards=overlap, **OPTIONS)
    trainer = DDPOTrainer("embedded", rewards, config, prompts_from_plugin("animals"))
    trainer.train()
    logs = [log for log in trainer.state.log_history if "seconds/rollout" in log][1:]
    sampling = sum(log["seconds/rollout"] for log in logs) / len(logs)
    return sampling + sum(log["seconds/reward_wait"] for log in logs) / len(logs), sampling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("overlap"))
    parser.add_argument("--rollouts", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    batches = OPTIONS["num_images_per_rollout"] // OPTIONS["rollout_batch_size"]
    print(f"{batches} batches a rollout; rewards take {SECONDS} s a batch, or as much computing as fits in that alone")
    print("| rewards | sampling, s | one after the other, s | at the same time, s | ratio |")
    print("|-|-|-|-|-|")
    for name, makers in REWARDS.items():
        rewards, folder = [make() for make in makers], arguments.output_dir / name
        sequential, sampling = rollout_seconds(folder / "sequential", rewards, arguments.rollouts, False)
        overlapped, _ = rollout_seconds(folder / "overlapped", rewards, arguments.rollouts, True)
        print(f"| {name} | {sampling:.2f} | {sequential:.2f} | {overlapped:.2f} | {sequential / overlapped:.2f} |")


if __name__ == "__main__":
    main()
