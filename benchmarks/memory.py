"""
How much memory does a rollout take while it is made, and while it is written into a checkpoint?

    python benchmarks/memory.py [--images 64 256 1024] [--side 32] [--steps 10] [--folder memory-benchmark]

Runs of random numbers, as large as those of a model with latents of 4 x side x side in float32 and prompts of 77 tokens of 768
numbers, two branches of guidance, eight images of a prompt, are added to a rollout in batches of eight, in a process of its
own for each number of images. Measured is the highest number of anonymous bytes (`RssAnon`: not of mapped files, which the
system writes to the disk when it needs their memory), without those before the first batch and those of one batch; and the same
of the whole process. glibc is told to give freed buffers back to the system at once: left alone it keeps up to 200 MB of them, as
it happens. `joined` is what earlier versions did: batches were kept, and concatenated in the end.
"""

import argparse
import os
import subprocess
import sys
import threading
from pathlib import Path

import torch

from trainer_ext.learning.rollout import Rollout
from trainer_ext.policy.recording.conditioning import CallRecord, Conditioning
from trainer_ext.policy.recording.memory import RolloutMemory, allocation
from trainer_ext.policy.recording.trajectory import Trajectory
from trainer_ext.policy.transitions.gaussian import TransitionTable
from trainer_ext.runs.checkpoint import DDPOState

BATCH, OF_A_PROMPT = 8, 8
KINDS = ("joined", "preallocated", "on disk")
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def anonymous_bytes() -> int:
    """Return the memory of this process that is of no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


class Peak:
    """Context manager that notes the highest number of anonymous bytes, looking every few milliseconds."""

    def __enter__(self) -> "Peak":
        self.before = self.highest = anonymous_bytes()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.done.wait(0.002):
            self.highest = max(self.highest, anonymous_bytes())

    @property
    def megabytes(self) -> float:
        return (self.highest - self.before) / 1e6


def batch(side: int, steps: int) -> Trajectory:
    """Return the runs of one batch, as the policy records them."""
    table = TransitionTable(*torch.ones(3, steps))
    prompts = torch.randn(BATCH // OF_A_PROMPT, 2, 77, 768).repeat_interleave(OF_A_PROMPT, 0)
    call = CallRecord({"encoder_hidden_states": prompts}, {}, torch.arange(steps), BATCH)
    latents, outputs = (torch.randn(BATCH, count, 4, side, side) for count in (steps + 1, steps))
    return Trajectory(table, latents, outputs, Conditioning.of_batch((call,), BATCH))


def measure(kind: str, images: int, side: int, steps: int, folder: Path) -> None:
    """Print the peaks in megabytes: of making the rollout, of a checkpoint in it, of the process; then the rollout's size."""
    parts: list[Trajectory] = []
    memory: RolloutMemory[Trajectory] = RolloutMemory(images, allocation(folder if kind == "on disk" else None))
    one = sum(value.nbytes for value in batch(side, steps).rows().values())
    with Peak() as making:
        for _ in range(images // BATCH):
            if kind == "joined":
                parts.append(batch(side, steps))
            else:
                memory.add(batch(side, steps).by_prompt(OF_A_PROMPT))
        if kind == "joined":
            tensors = {name: torch.cat([part.rows()[name] for part in parts]) for name in parts[0].rows()}
            embeddings = [part.conditioning.groups[0][0].per_image["encoder_hidden_states"] for part in parts]
            call = CallRecord({"encoder_hidden_states": torch.cat(embeddings)}, {}, torch.arange(steps), images)
            data = Trajectory(parts[0].table, **tensors, conditioning=Conditioning.of_batch((call,), images))
            embeddings.clear()
            parts.clear()
        else:
            data = memory.whole()
    with Peak() as saving:
        DDPOState({}, "ddpo_is", [], {}, Rollout(0, data, torch.zeros(images)), {}).save(folder, 0, 1)
    size = sum(value.nbytes for value in data.rows().values())
    whole = max(making.highest, saving.highest) / 1e6
    print(f"{making.megabytes - one / 1e6:.0f} {saving.megabytes:.0f} {whole:.0f} {size / 1e6:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("memory-benchmark"))
    parser.add_argument("--kind", choices=KINDS, help="measure only this, in this process")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.kind is not None:
        measure(given.kind, given.images[0], given.side, given.steps, given.folder)
        return
    print("| rollout | images | size, MB | peak while it is made, MB | peak while it is saved, MB | the process, MB |")
    print("|-|-|-|-|-|-|")
    options = ["--side", given.side, "--steps", given.steps, "--folder", given.folder]
    for kind in KINDS:
        for images in given.images:
            command = [sys.executable, __file__, "--kind", kind, "--images", images, *options]
            made, saved, whole, size = subprocess.check_output(
                list(map(str, command)), text=True, env={**os.environ, **GIVE_BACK}
            ).split()
            print(f"| {kind} | {images} | {size} | {made} | {saved} | {whole} |", flush=True)


if __name__ == "__main__":
    main()
