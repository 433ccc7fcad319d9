"""
Are runs judged rightly? Runs that are healthy, gamed or do not learn on purpose, by the embedded model: what their verdicts say,
and whether the checkpoint that they choose is the best by a judge that had no part in them.

    python benchmarks/over_optimisation.py [--seeds 0 1 ... 9] [--kinds healthy gamed "not learning"] [--output_dir lab]

The second judge (`benchmarks/second_judge`) was made by the recipe of the embedded model with another seed, and never saw one
of the icon sets. A run that is there already is not made again.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from commands import run
from PIL import Image

from trainer_ext import reward_from_plugin
from trainer_ext.runs.drawings import Evaluation
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.measures.verdict import Verdict, VerdictKind
from trainer_ext.runs.summary import RunSummary, recorded_evaluations

SECOND_JUDGE = Path(__file__).with_name("second_judge")
#: For each kind of run: what makes it one, and the verdict that is right.
KINDS = {
    "healthy": (["--preset", "embedded/alignment"], VerdictKind.HEALTHY),
    "gamed": (["--preset", "embedded/compressibility", "--num_train_epochs", "5"], VerdictKind.OVER_OPTIMISED),
    "not learning": (["--learning_rate", "1e-12", "--num_train_epochs", "5"], VerdictKind.NOT_LEARNING),
}


OPTIONS = ["--num_sample_images", "0", "--disable_tqdm", "true"]


def train(kind: str, seed: int, folder: Path) -> None:
    """Make a run unless it is there."""
    if RunFolder(folder).curve_file.exists():  # drawn last
        return
    command = [sys.executable, "-m", "trainer_ext.cli", "train", *KINDS[kind][0], *OPTIONS, "--seed", str(seed)]
    run([*command, "--output_dir", str(folder)])


def second_opinion(evaluations: list[Evaluation]) -> dict[int, float]:
    """The mean probability of the second judge for each evaluation's pictures, by its updates."""
    judge = reward_from_plugin("embedded_judge", folder=str(SECOND_JUDGE)).function
    means = {}
    for evaluation in evaluations:
        shown = [
            (file, record["prompt"]) for file, record in zip(evaluation.files, evaluation.records, strict=True) if file
        ]
        images = [Image.open(file).convert("RGB") for file, _ in shown]
        means[evaluation.updates] = float(np.mean(judge(images=images, prompts=[prompt for _, prompt in shown])))
    return means


def change(verdict: Verdict, what: str) -> str:
    """One of the verdict's figures."""
    value = verdict.numbers.get(f"change of {what}")
    return "" if value is None else f"{value:+.3g}"


def row(kind: str, seed: int, folder: Path) -> bool:
    """Print what is said of a run; return whether it is right."""
    summary = RunSummary.of(RunFolder(folder))
    verdict = summary.verdict
    assert verdict is not None
    opinion = second_opinion(recorded_evaluations(RunFolder(folder)).joined)  # the images that the verdict is on
    best = max(opinion, key=opinion.__getitem__)
    chosen = "" if verdict.chosen is None else f"{verdict.chosen} ({opinion[verdict.chosen]:.2f})"
    last = opinion[max(opinion)]
    right = verdict.kind is KINDS[kind][1]
    print(
        f"| {kind} | {seed} | {verdict.kind.value} | {'yes' if right else '**no**'} | {change(verdict, 'the trained reward')} | "
        f"{change(verdict, 'the held-out rewards, in standard deviations')} | {chosen} | "
        f"{best} ({opinion[best]:.2f}) | {last:.2f} |",
        flush=True,
    )
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--output_dir", type=Path, default=Path("lab"))
    arguments = parser.parse_args()
    print(
        "| run | seed | verdict | right | trained reward | held-out, std | chosen (second judge) | its best | its last |"
    )
    print("|-|-|-|-|-|-|-|-|-|")
    right = dict.fromkeys(arguments.kinds, 0)
    for seed in arguments.seeds:
        for kind in arguments.kinds:
            folder = arguments.output_dir / f"{kind.replace(' ', '-')}-{seed}"
            train(kind, seed, folder)
            right[kind] += row(kind, seed, folder)
    print("; ".join(f"{kind}: {count} of {len(arguments.seeds)} right" for kind, count in right.items()))


if __name__ == "__main__":
    main()
