"""
What keeping images costs: the embedded model's rollouts with and without it, one after the other, by one policy.

    python benchmarks/keep_images.py [--output_dir keep-images] [--rollouts 15] [--share 1.0]

The same prompts and seeds are sampled each time. Seconds are those of the processor, over all threads: what keeping costs where
no core is free to do it beside the sampling. torch computes in one thread. `--share 0.0001` keeps nothing: a control.
"""

import argparse
import shutil
import statistics
import time
from pathlib import Path

import torch

from trainer_ext import DDPOConfig, DDPOTrainer, prompts_from_plugin
from trainer_ext.cli.quiet import quiet_libraries
from trainer_ext.rollouts.keeping import ImageKeeper

OPTIONS = {
    "num_inference_steps": 10,
    "guidance_scale": 1.0,
    "num_images_per_rollout": 32,
    "rollout_batch_size": 8,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "num_sample_images": 0,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}


def free(images: object, prompts: list[str], **columns: object) -> list[float]:
    return [float(index) for index in range(len(prompts))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("keep-images"))
    parser.add_argument("--rollouts", type=int, default=15)
    parser.add_argument("--share", type=float, default=1.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    config = DDPOConfig(output_dir=str(arguments.output_dir), **OPTIONS)
    trainer = DDPOTrainer("embedded", free, config, prompts_from_plugin("animals"))
    collector = trainer._collector
    keepers = [
        ImageKeeper(collector._keeper.folder, share, 1e12, config.num_images_per_rollout, config.seed)
        for share in (None, arguments.share)
    ]
    seconds: list[list[float]] = [[], []]
    plan = collector.schedule.plan(0)
    for rollout in range(arguments.rollouts + 1):
        for kind in (0, 1) if rollout % 2 else (1, 0):
            collector._keeper = keepers[kind]
            start = time.process_time()
            collector._sample_and_score(trainer.model, rollout, plan, trainer.state)
            seconds[kind].append(time.process_time() - start)
    without, kept = (times[1:] for times in seconds)  # the first one replays steps
    ratio = statistics.median(b / a for a, b in zip(without, kept, strict=True))
    print(f"a rollout of {config.num_images_per_rollout} images, median of {arguments.rollouts}:")
    print(
        f"without {statistics.median(without):.3f} s, with {statistics.median(kept):.3f} s, ratio {ratio:.4f} (of neighbours)"
    )
    images = torch.randint(0, 256, (config.num_images_per_rollout, 64, 64, 3), dtype=torch.uint8)
    start = time.perf_counter()
    with keepers[1].keeping(0, 0, len(images)) as keep:
        keep(0, images)
    print(f"the writing alone: {time.perf_counter() - start:.4f} s (noise, which takes longest)")
    shutil.rmtree(arguments.output_dir)


if __name__ == "__main__":
    main()
