"""
Reward against reward queries and against CPU seconds for all algorithms, on the embedded model, two rewards and several seeds:
in tables, in plots, and on a page with all runs beside one another.

    python benchmarks/algorithms.py [--only NFT RWR] [--tasks aesthetic] [--seeds 0 1 2] [--jobs 2] [--output_dir algorithms] \
        [options of ddpo train]
    python benchmarks/algorithms.py --report_only --runs_in algorithms from_another_machine

The comparison can be made in parts: finished runs in --output_dir and --runs_in are not run again, one that was cut off begins
again, and tables, plots and pages are of those that are asked for and are there. They are written to --output_dir; folders that
were brought from another machine are only read.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from trainer_ext.report.comparison_page import write_comparison
from trainer_ext.report.drawing.learning_curves import Curve, draw_curves, of_rollouts
from trainer_ext.report.facts import RunFacts

TASKS = {"incompressibility": [], "aesthetic": ["embedded/aesthetic"]}
ALGORITHMS = {
    "DDPO-IS": [],
    "DDPO-SF": ["embedded/sf"],
    "RWR": ["embedded/rwr"],
    "sparse-RWR": ["embedded/sparse_rwr"],
    "AWM": ["embedded/awm"],
    "NFT": ["embedded/nft"],
    "GRPO-Guard": ["embedded/grpo_guard"],
    "Flow-DPPO": ["embedded/flow_dppo"],
}
UNITS = {"incompressibility": "JPEG size, kB", "aesthetic": "embedded_aesthetic"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
OPTIONS = {
    "num_sample_images": "0",
    "save_strategy": "no",
    "eval_strategy": "no",
    "disable_tqdm": "true",
}  #: of all runs, beside their presets
QUIET = [text for name, value in OPTIONS.items() for text in (f"--{name}", value)]
CPU_FILE = "cpu_seconds.json"  #: written last, so that a run that has it is finished


@dataclass(frozen=True)
class Places:
    """Where runs are: new ones in the first folder, finished ones in any."""

    output_dir: Path
    others: Sequence[Path]

    def new(self, task: str, name: str, seed: int) -> Path:
        """Where a run is made."""
        return self.output_dir / f"{task}-{name}-{seed}"

    def finished(self, task: str, name: str, seed: int) -> Path | None:
        """Where a run is that is finished."""
        places = (folder / self.new(task, name, seed).name for folder in (self.output_dir, *self.others))
        return next((place for place in places if (place / CPU_FILE).is_file()), None)

    def of_task(self, task: str, algorithms: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Path]]:
        """The finished runs of a task, by algorithm."""
        found = {name: [self.finished(task, name, seed) for seed in seeds] for name in algorithms}
        return {name: runs for name, each in found.items() if (runs := [run for run in each if run is not None])}


def train(task: str, name: str, folder: Path, options: Sequence[str]) -> str | None:
    """Train, and note the CPU seconds that it took. Returns the reason if it failed."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut off
    command = [
        sys.executable,
        "-m",
        "trainer_ext.cli",
        "train",
        "--preset",
        "embedded",
        *TASKS[task],
        *ALGORITHMS[name],
    ]
    log = folder.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *QUIET, *options, "--output_dir", str(folder)],
            env={**os.environ, **ONE_THREAD},
            stdout=output,
            stderr=output,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        return f"{folder.name} failed; see {log}"
    (folder / CPU_FILE).write_text(json.dumps(usage.ru_utime + usage.ru_stime))
    return None


def train_missing(places: Places, arguments: argparse.Namespace, options: Sequence[str]) -> list[str]:
    """Make all runs that are asked for and not finished, several at once. Returns the reasons of those that failed."""
    places.output_dir.mkdir(parents=True, exist_ok=True)
    asked = product(arguments.seeds, arguments.tasks, arguments.only)
    missing = [(task, name, seed) for seed, task, name in asked if places.finished(task, name, seed) is None]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = [
            pool.submit(train, task, name, places.new(task, name, seed), [*options, "--seed", str(seed)])
            for task, name, seed in missing
        ]
    return [reason for job in jobs if (reason := job.result()) is not None]


def cpu_seconds(folder: Path) -> float:
    return json.loads((folder / CPU_FILE).read_text())


def over_seconds(curve: Curve, folder: Path) -> Curve:
    """Spread the CPU seconds of a whole run evenly over its reward queries; loading is a small part of them."""
    return Curve(curve.places / curve.places[-1] * cpu_seconds(folder), curve.values)


Curves = Mapping[str, Sequence[Curve]]


def gains_at(curves: Curves, place: float) -> dict[str, float]:
    """What each algorithm has gained over its first rollout at one place of all curves: a mean over seeds."""
    return {
        name: float(np.mean([np.interp(place, run.places, run.values) - run.values[0] for run in runs]))
        for name, runs in curves.items()
    }


def last_common(curves: Curves) -> float:
    """The last place that all curves reach."""
    return min(run.places[-1] for runs in curves.values() for run in runs)


def print_table(queries: Curves, seconds: Curves) -> None:
    """Print what each algorithm reaches, and who gained most with equal queries and with equal time."""
    ends = {label: last_common(curves) for label, curves in (("queries", queries), ("CPU seconds", seconds))}
    gains = {"queries": gains_at(queries, ends["queries"]), "CPU seconds": gains_at(seconds, ends["CPU seconds"])}
    columns = [f"gain at {end:.0f} {label}" for label, end in ends.items()]
    print(f"| algorithm | first rollout | last rollout (each seed) | gain | {' | '.join(columns)} | CPU seconds |")
    print(f"|{'-|' * 7}")
    for name, runs in queries.items():
        first, last = (np.array([run.values[index] for run in runs]) for index in (0, -1))
        each = ", ".join(f"{value:.3g}" for value in last)
        equal = " | ".join(f"{gains[label][name]:+.3g}" for label in ends)
        taken = np.mean([run.places[-1] for run in seconds[name]])
        total = f"{last.mean() - first.mean():+.3g}"
        print(f"| {name} | {first.mean():.3g} | {last.mean():.3g} ({each}) | {total} | {equal} | {taken:.0f} |")
    for label, end in ends.items():
        ranked = sorted(gains[label], key=gains[label].__getitem__, reverse=True)
        print(f"\nWith {end:.0f} {label}, in the order of gain: {', '.join(ranked)}.")


def report(task: str, folders: Mapping[str, Sequence[Path]], output_dir: Path) -> None:
    """Print a table of a task's runs, draw them over queries and over CPU seconds, and write the page."""
    queries = {name: [of_rollouts(RunFacts.read(folder)) for folder in runs] for name, runs in folders.items()}
    seconds = {
        name: [over_seconds(*pair) for pair in zip(curves, folders[name], strict=True)]
        for name, curves in queries.items()
    }
    print(f"\n{task}\n")
    print_table(queries, seconds)
    for label, drawn in (("reward queries", queries), ("CPU seconds", seconds)):
        picture = output_dir / f"{task}-{label.split()[-1]}.png"
        draw_curves(drawn, label, UNITS[task]).savefig(picture, dpi=160)
        print(picture)
    rows = [(folder, name) for name, runs in folders.items() for folder in runs]
    if len(rows) > 1:
        page = output_dir / f"{task}.html"
        write_comparison([folder for folder, _ in rows], page, [label for _, label in rows])
        print(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(ALGORITHMS), choices=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--output_dir", type=Path, default=Path("algorithms"))
    parser.add_argument("--runs_in", type=Path, nargs="+", default=[], help="more folders with finished runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, each with one thread")
    parser.add_argument("--report_only", action="store_true", help="run nothing")
    arguments, options = parser.parse_known_args()
    if arguments.report_only and options:
        parser.error(f"--report_only runs nothing, and {' '.join(options)} would be options of a run.")
    places = Places(arguments.output_dir, arguments.runs_in)
    failed = [] if arguments.report_only else train_missing(places, arguments, options)
    places.output_dir.mkdir(parents=True, exist_ok=True)
    for task in arguments.tasks:
        folders = places.of_task(task, arguments.only, arguments.seeds)
        if folders:
            report(task, folders, places.output_dir)
        else:
            print(f"\n{task}: no finished run.")
    if failed:
        raise SystemExit("\n".join(["", *failed]))


if __name__ == "__main__":
    main()
