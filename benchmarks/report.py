"""
How large and how slow the report of a long run is: 200 evaluations of 64 prompts, of a run that never happened.

    python benchmarks/report.py [--evaluations 200] [--prompts 64] [--side 512] [--output_dir report-benchmark]

Pictures of every tenth evaluation are drawn; those between are the same files again.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.synthetic_runs import SyntheticRun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--side", type=int, default=512, help="of the pictures, in pixels")
    parser.add_argument("--output_dir", type=Path, default=Path("report-benchmark"))
    arguments = parser.parse_args()
    prompts = [f"animal number {index} in a landscape" for index in range(arguments.prompts)]
    half = arguments.prompts // 2
    shutil.rmtree(arguments.output_dir, ignore_errors=True)
    SyntheticRun(
        seen=tuple(prompts[:half]),
        unseen=tuple(prompts[half:]),
        evaluations=arguments.evaluations,
        rollouts=arguments.evaluations,
        images=64,
        side=arguments.side,
        drawn_every=10,
        samples=False,
    ).write(arguments.output_dir)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "trainer_ext.cli", "report", arguments.output_dir], check=True)
    seconds, times = time.perf_counter() - start, os.times()
    cpu = times.children_user + times.children_system
    size = (arguments.output_dir / "report.html").stat().st_size
    print("\n| evaluations | prompts | pixels | seconds | of them on the CPU | MB |\n|-|-|-|-|-|-|")
    print(
        f"| {arguments.evaluations} | {arguments.prompts} | {arguments.side} | {seconds:.1f} | {cpu:.1f} | {size / 1e6:.2f} |"
    )


if __name__ == "__main__":
    main()
