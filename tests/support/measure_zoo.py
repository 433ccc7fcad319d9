"""Prints the manual's table of pipelines, measured: `PYTHONPATH=tests python -m support.measure_zoo [NAME ...]`."""

import sys
import warnings

import torch

from support import zoo
from support.zoo_questions import as_sampled, make_policy, mixed, two_each

HEADER = "| pipeline | guidance rule found | as sampled | steps mixed | as sampled, bf16 |"


def row(family):
    """One line: log-ratios before any update, at most."""
    torch.manual_seed(0)
    pipeline = family.build()
    same = []
    for dtype in (torch.float32, torch.bfloat16):
        policy = make_policy(family, pipeline if dtype == torch.float32 else zoo.in_bfloat16(pipeline))
        trajectory = two_each(policy).trajectory
        same.append(max(abs(value) for step in as_sampled(policy, trajectory, None) for value in step))
        if dtype == torch.float32:
            rule, error = policy.findings.guidance.name, mixed(policy, trajectory)
    return (
        f"| `{family.kind}`{family.name[len(family.kind) :]} | `{rule}` | {same[0]:.0e} | {error:.0e} | {same[1]:.0e} |"
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(HEADER)
    print(f"|{'-|' * 5}")
    for name in sys.argv[1:] or zoo.FAMILIES:
        print(row(zoo.FAMILIES[name]), flush=True)
