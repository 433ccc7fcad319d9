"""
What measuring an evaluation costs: CPU seconds of the figures that need no model, of the pictures on the disk and of the
divergence, each as a share of the whole evaluation's, in one run.

    python benchmarks/evaluation.py [--size 512] [--steps 10]
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer_ext import DDPOConfig, DDPOTrainer, prompts_from_plugin, reward_from_plugin
from trainer_ext.monitoring import evaluation, judging
from trainer_ext.monitoring.divergence import DivergenceMeter

PARTS: list[tuple[Any, str, str]] = [
    (judging, "pixel_figures", "figures"),
    (judging, "thumbnail", "figures"),
    (judging, "mean_distances", "figures"),
    (evaluation, "evaluation_figures", "figures"),
    (judging, "write_pictures", "pictures"),
    (evaluation, "write_records", "pictures"),
    (DivergenceMeter, "measure", "divergence"),
]


def measured(seconds: dict[str, float], owner: Any, name: str, part: str) -> None:
    """Count the CPU seconds of the thread that calls a function."""
    function: Callable[..., Any] = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += time.thread_time() - start

    setattr(owner, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of the images, in pixels")
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # so that a thread's seconds are all that its call takes
    with tempfile.TemporaryDirectory() as folder:
        options = DDPOConfig(
            output_dir=str(Path(folder) / "run"),
            num_inference_steps=arguments.steps,
            guidance_scale=1.0,
            pipeline_kwargs={"height": arguments.size, "width": arguments.size},
            num_images_per_rollout=8,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=1,
            max_steps=1,
            eval_strategy="epoch",
            eval_images_per_prompt=2,
            num_sample_images=0,
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        rewards = [reward_from_plugin(name) for name in ("jpeg_incompressibility", "jpeg_compressibility")]
        prompts = prompts_from_plugin("animals").select(range(16))
        trainer = DDPOTrainer("embedded", rewards[:1], options, prompts, prompts, eval_reward_funcs=rewards[1:])
        seconds: dict[str, float] = defaultdict(float)
        for part in PARTS:
            measured(seconds, *part)
        start = time.process_time()
        trainer.evaluate()  # builds what is built once
        seconds.clear()
        trainer.is_in_train = True  # so that it is recorded
        start = time.process_time()
        trainer.evaluate()
        whole = time.process_time() - start
    print(
        f"evaluation of {2 * len(prompts)} images of {arguments.size} pixels, {arguments.steps} steps: {whole:.2f} CPU s"
    )
    for part, value in seconds.items():
        print(f"  {part}: {value:.3f} s, {value / whole:.1%}")


if __name__ == "__main__":
    main()
