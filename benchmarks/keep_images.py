"""
What keeping images costs: the embedded model's rollouts with and without it, by one policy in one process.

    python benchmarks/keep_images.py [--output_dir keep-images] [--rounds 100] [--share 1.0]

A round samples the same eight images three times, in an order that changes: without keeping, with it, and without it once
more, which shows what the measurement itself is worth. Seconds are those of the processor over all threads, so that neither
other programs nor a free core that could write beside the sampling matter; the median of the rounds' ratios is given with its
95 % interval.
"""

import argparse
import itertools
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from trainer_ext import DDPOConfig, DDPOTrainer, prompts_from_plugin
from trainer_ext.cli.quiet import quiet_libraries
from trainer_ext.rollouts.keeping import ImageKeeper

IMAGES = 8
OPTIONS = {
    "num_inference_steps": 10,
    "guidance_scale": 1.0,
    "num_images_per_rollout": IMAGES,
    "rollout_batch_size": IMAGES,
    "per_device_train_batch_size": IMAGES,
    "gradient_accumulation_steps": 1,
    "num_sample_images": 0,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}


def free(images: object, prompts: list[str], **columns: object) -> list[float]:
    return [float(index) for index in range(len(prompts))]


def measured(trainer: DDPOTrainer, share: float, rounds: int) -> np.ndarray:
    """Return the processor's seconds `(rounds, 3)` of rollouts without keeping, with it, and without it again."""
    collector, args = trainer._collector, trainer.args
    keepers = [
        ImageKeeper(collector._keeper.folder, kept, 1e12, args.num_images_per_rollout, args.seed)
        for kept in (None, share, None)
    ]
    plan, orders = collector.schedule.plan(0), itertools.cycle(itertools.permutations(range(len(keepers))))
    seconds = np.zeros((rounds + 1, len(keepers)))
    for rollout, order in zip(range(rounds + 1), orders, strict=False):
        for kind in order:
            collector._keeper = keepers[kind]
            start = time.process_time()
            collector._sample_and_score(trainer.model, rollout, plan, trainer.state)
            seconds[rollout, kind] = time.process_time() - start
    return seconds[1:]  # the first one replays steps


def cost(seconds: np.ndarray, kind: int) -> str:
    """Describe how much longer one kind of rollouts takes than those without keeping, from `(rounds, 3)`."""
    ratios = seconds[:, kind] / seconds[:, 0] - 1
    interval = stats.bootstrap((ratios,), np.median, rng=np.random.default_rng(0)).confidence_interval
    return f"{np.median(ratios):+.2%} (95 % interval {interval.low:+.2%} to {interval.high:+.2%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("keep-images"))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--share", type=float, default=1.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    config = DDPOConfig(output_dir=str(arguments.output_dir), **OPTIONS)
    trainer = DDPOTrainer("embedded", free, config, prompts_from_plugin("animals"))
    seconds = measured(trainer, arguments.share, arguments.rounds)
    median = np.median(seconds, axis=0)
    print(f"rollouts of {IMAGES} images, medians of {arguments.rounds} rounds, processor's seconds:")
    print(f"without keeping {median[0]:.4f}, with {median[1]:.4f}, without again {median[2]:.4f}")
    print(f"keeping costs {cost(seconds, 1)}; the same without it {cost(seconds, 2)}")
    shutil.rmtree(arguments.output_dir)


if __name__ == "__main__":
    main()
