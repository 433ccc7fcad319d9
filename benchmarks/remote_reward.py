"""
Throughput of a reward on servers: images a second with one, two and four servers on this machine, beside the ideal.

    python benchmarks/remote_reward.py [--images 64] [--size 512] [--milliseconds 20] [--batches 4]

The reward waits for a fixed time for each image, as for a model on a GPU elsewhere, so that the figures are what sending costs:
encoding, HTTP, decoding. Each server is a process of its own; the client is this one.
"""

import argparse
import subprocess
import sys
import time
from typing import Any

import torch

from trainer_ext import RewardFunction, reward_from_plugin
from trainer_ext.scoring.suite import RewardSuite
from trainer_ext.scoring.threads import EventLoop

SERVERS = (1, 2, 4)


def serve(milliseconds: float) -> None:
    from trainer_ext.serving.app import build_app
    from trainer_ext.serving.functions import ServedFunction
    from trainer_ext.serving.run import listen, make_server, serve

    def waits(images: Any, prompts: list[str], **columns: Any) -> list[float]:
        time.sleep(milliseconds / 1000 * len(images))
        return [0.0] * len(images)

    app = build_app([ServedFunction(RewardFunction("waits", waits), "cpu", EventLoop())])
    with listen("127.0.0.1", 0) as place:
        serve(make_server(app), place, lambda url: print(url, flush=True))


def images_per_second(urls: list[str], images: torch.Tensor, batches: int, image_format: str) -> float:
    suite = RewardSuite([reward_from_plugin("remote", function="waits", urls=urls, image_format=image_format)])
    rows = [{"prompt": "a cat"}] * len(images)
    suite.score(images, rows)  # warms up
    start = time.perf_counter()
    for _ in range(batches):
        suite.score(images, rows)
    return len(images) * batches / (time.perf_counter() - start)


def smooth_images(count: int, size: int) -> torch.Tensor:
    """As compressible as photographs, roughly: noise at an eighth of the size, and a little at the full one."""
    coarse = torch.rand(count, 3, size // 8, size // 8)
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic") + 0.02 * torch.randn(count, 3, size, size)
    return (fine.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--milliseconds", type=float, default=20.0)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.milliseconds)
    torch.manual_seed(0)
    images = smooth_images(arguments.images, arguments.size)
    command = [sys.executable, __file__, "--serve", "--milliseconds", str(arguments.milliseconds)]
    servers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(max(SERVERS))]
    try:
        urls = [server.stdout.readline().strip() for server in servers if server.stdout is not None]
        print("| servers | ideal, images/s | WebP | PNG |\n|-|-|-|-|")
        for number in SERVERS:
            measured = [
                images_per_second(urls[:number], images, arguments.batches, image_format)
                for image_format in ("webp", "png")
            ]
            ideal = 1000 * number / arguments.milliseconds
            print(f"| {number} | {ideal:.0f} | {' | '.join(f'{value:.0f}' for value in measured)} |", flush=True)
    finally:
        for server in servers:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
