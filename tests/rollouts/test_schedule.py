from collections import Counter
from itertools import chain

import pytest
import torch

from trainer_ext.learning.order import shuffled_steps
from trainer_ext.policy.seeds import image_generators
from trainer_ext.rollouts.schedule import PromptSchedule, SamplingPlan

ROWS = [{"prompt": f"prompt {index}", "index": index} for index in range(7)]


def pieces(plan):
    """What decides about each image."""
    return [(row["index"], seed) for row, seed in zip(plan.image_rows, plan.seeds, strict=True)]


# Which prompts and seeds


def test_a_schedule_is_a_pure_function():
    first = PromptSchedule(ROWS, num_images=12, num_images_per_prompt=3, seed=5)
    in_order = [first.plan(rollout) for rollout in range(6)]
    second = PromptSchedule(ROWS, num_images=12, num_images_per_prompt=3, seed=5)
    torch.manual_seed(99)
    assert [second.plan(rollout) for rollout in (4, 0, 4, 5)] == [in_order[rollout] for rollout in (4, 0, 4, 5)]
    other = PromptSchedule(ROWS, num_images=12, num_images_per_prompt=3, seed=6)
    assert other.plan(0).seeds != in_order[0].seeds
    assert [other.plan(rollout).rows for rollout in range(6)] != [plan.rows for plan in in_order]


def test_every_prompt_is_used_equally_often():
    schedule = PromptSchedule(ROWS, num_images=12, num_images_per_prompt=3, seed=0)
    drawn = [row["index"] for rollout in range(7) for row in schedule.plan(rollout).rows]
    assert Counter(drawn) == dict.fromkeys(range(7), 4)
    passes = [drawn[first : first + 7] for first in range(0, 28, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes), "in whole passes, across rollouts"
    assert len(set(map(tuple, passes))) == 4, "each in another order"


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_share_what_one_process_would_do(num_processes):
    schedule = PromptSchedule(ROWS, num_images=24, num_images_per_prompt=3, seed=1)
    for rollout in (0, 1, 9):
        shares = [schedule.plan(rollout, process, num_processes) for process in range(num_processes)]
        assert [len(share.seeds) for share in shares] == [24 // num_processes] * num_processes
        assert list(chain.from_iterable(map(pieces, shares))) == pieces(schedule.plan(rollout))


def test_no_seed_is_used_twice():
    schedule = PromptSchedule(ROWS, num_images=64, num_images_per_prompt=1, seed=0)
    seeds = [seed for rollout in range(50) for seed in schedule.plan(rollout).seeds]
    assert len(set(seeds)) == len(seeds) == 3200


def test_more_prompts_than_rows():
    """One rollout takes several passes."""
    plan = PromptSchedule(ROWS, num_images=21, num_images_per_prompt=1, seed=0).plan(0)
    assert Counter(row["index"] for row in plan.rows) == dict.fromkeys(range(7), 3)


def test_rows_are_copies():
    rows = [{"prompt": "a cat"}]
    PromptSchedule(rows, 1, 1, 0).plan(0).rows[0]["prompt"] = "changed"
    assert rows == [{"prompt": "a cat"}]


def test_images_of_a_prompt_lie_together():
    plan = SamplingPlan(ROWS[:2], seeds=[1, 2, 3, 4, 5, 6], num_images_per_prompt=3)
    assert plan.prompts == ["prompt 0"] * 3 + ["prompt 1"] * 3


# Batches


@pytest.mark.parametrize(
    ("num_images_per_prompt", "batch_size", "expected"),
    [
        pytest.param(1, 4, [(4, 1), (4, 1), (4, 1)], id="one image a prompt"),
        pytest.param(1, 5, [(5, 1), (5, 1), (2, 1)], id="a last batch that is smaller"),
        pytest.param(2, 4, [(2, 2), (2, 2), (2, 2)], id="two prompts a batch"),
        pytest.param(4, 4, [(1, 4), (1, 4), (1, 4)], id="one prompt a batch"),
        pytest.param(4, 8, [(2, 4), (1, 4)], id="a last batch with one prompt"),
        pytest.param(4, 2, [(1, 2)] * 6, id="a prompt is larger than a batch"),
        pytest.param(12, 3, [(1, 3)] * 4, id="one prompt for all batches"),
        pytest.param(6, 100, [(2, 6)], id="everything at once"),
    ],
)
def test_batches_hold_whole_prompts_where_they_fit(num_images_per_prompt, batch_size, expected):
    plan = SamplingPlan((ROWS * 2)[: 12 // num_images_per_prompt], list(range(100, 112)), num_images_per_prompt)
    batches = plan.batches(batch_size)
    assert [(len(batch.rows), batch.num_images_per_prompt) for batch in batches] == expected
    assert list(chain.from_iterable(map(pieces, batches))) == pieces(plan)


# Generators and steps


def test_a_seed_is_a_generator():
    draws = [torch.randn(3, generator=generator).tolist() for generator in image_generators([3, 4, 3])]
    assert draws[0] == draws[2] == torch.randn(3, generator=torch.Generator().manual_seed(3)).tolist()
    assert draws[0] != draws[1]


@pytest.mark.parametrize(("fraction", "kept"), [(1.0, 10), (0.5, 5), (0.59, 5), (0.1, 1), (0.01, 1)])
def test_a_fraction_of_the_steps_is_kept(fraction, kept):
    steps = torch.arange(3, 13)
    shuffled = shuffled_steps(steps, 20, fraction, torch.Generator().manual_seed(0))
    assert (shuffled.shape, shuffled.dtype) == ((20, kept), torch.int64)
    for row in shuffled.tolist():
        assert len(set(row)) == kept, "no step twice"
        assert set(row) <= set(steps.tolist())


def test_each_image_has_its_own_order():
    steps = torch.tensor([0, 1, 2, 4, 7, 8, 9])
    shuffled = shuffled_steps(steps, 40, 1.0, torch.Generator().manual_seed(0))
    assert all(sorted(row) == steps.tolist() for row in shuffled.tolist())
    assert len(set(map(tuple, shuffled.tolist()))) == 40
    again = shuffled_steps(steps, 40, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(shuffled, again), "the generator alone decides"


def test_every_step_is_as_likely_to_be_kept():
    """Of 6000 images, each of 6 steps is the first for 1000 +- 29; 5 standard deviations are allowed."""
    first = shuffled_steps(torch.arange(6), 6000, 0.17, torch.Generator().manual_seed(0))
    assert (first.flatten().bincount(minlength=6) - 1000).abs().max() < 5 * 29
