import json
import tracemalloc
from collections import defaultdict, deque

import numpy as np
import pytest

from ddpo_plugins.prompt_rows import images_of
from trainer_ext.learning.advantages import (
    BatchBaseline,
    GroupBaseline,
    GroupOverBatchBaseline,
    PerPromptStatTracker,
    WinRateBaseline,
    standardise,
    win_rates,
)


class AuthorsTracker:
    """The algorithm as facts and paper state it, written down independently of ours."""

    def __init__(self, buffer_size, min_count):
        self.min_count = min_count
        self.stats = defaultdict(lambda: deque(maxlen=buffer_size))

    def update(self, prompts, rewards):
        prompts, rewards = np.array(prompts), np.array(rewards, dtype=np.float64)
        advantages = np.empty_like(rewards)
        for prompt in np.unique(prompts):
            mine = prompts == prompt
            self.stats[prompt].extend(rewards[mine])
            own = np.array(self.stats[prompt])
            reference = own if len(own) >= self.min_count else rewards
            advantages[mine] = (rewards[mine] - np.mean(reference)) / (np.sqrt(np.var(reference)) + 1e-6)
        return advantages


@pytest.mark.parametrize(("buffer_size", "min_count"), [(16, 16), (32, 16), (4, 2), (8, 1), (2, 3)])
def test_advantages_are_those_of_the_authors_algorithm(buffer_size, min_count):
    random = np.random.default_rng(0)
    ours, authors = PerPromptStatTracker(buffer_size, min_count), AuthorsTracker(buffer_size, min_count)
    for _ in range(12):
        prompts = random.choice(["a cat", "a dog", "a rare bird"], size=16, p=[0.6, 0.35, 0.05]).tolist()
        rewards = random.normal(5, 2, size=16) + np.array([len(prompt) for prompt in prompts])
        advantages = ours.update(prompts, rewards)
        np.testing.assert_allclose(advantages.values, authors.update(prompts, rewards), rtol=1e-12)
        assert advantages.values.dtype == np.float64
        assert advantages.frac_reward_zero_std == 0


def test_own_and_batch_statistics_by_hand():
    """
    "cat" has its two rewards: mean 2, std 1. "dog" has one, too few: the batch 1, 3, 8 has mean 4 and std sqrt(26 / 3).
    """
    advantages = PerPromptStatTracker(buffer_size=8, min_count=2).update(
        ["cat", "dog", "cat"], np.array([1.0, 8.0, 3.0])
    )
    assert advantages.values.tolist() == pytest.approx([-1, 4 / np.sqrt(26 / 3), 1], rel=2e-6)
    assert advantages.values[2] == 1 / (1 + 1e-6)


def test_rewards_are_remembered_until_the_buffer_is_full():
    """The buffer of 2 holds 1, 3 after the first call, 3, 7 after the second, 7, 5 after the third."""
    tracker = PerPromptStatTracker(buffer_size=2, min_count=1)
    tracker.update(["cat", "cat"], np.array([1.0, 3.0]))
    assert tracker.update(["cat"], np.array([7.0])).values.tolist() == pytest.approx([(7 - 5) / 2])
    assert tracker.update(["cat"], np.array([5.0])).values.tolist() == pytest.approx([(5 - 6) / 1], rel=2e-6)
    assert tracker.state_dict() == {"cat": [7.0, 5.0]}


def test_prompts_are_compared_as_they_are():
    tracker = PerPromptStatTracker(buffer_size=4, min_count=1)
    prompts = ["a cat", "a cat ", "A cat", "a cat" + " very" * 100, "a cat" + " very" * 100 + " small"]
    tracker.update(prompts, np.arange(5.0))
    assert list(tracker.state_dict()) == prompts


@pytest.mark.parametrize("reward", [0.7, 0.1 + 0.2, 1e9 / 3, -5.0])
def test_equal_rewards_give_exactly_zero(reward):
    """The std of seven times 0.1 + 0.2 is 5e-17 and their mean is off by as much; neither is a difference."""
    tracker = PerPromptStatTracker(buffer_size=32, min_count=2)
    advantages = tracker.update(["same"] * 7 + ["other"] * 2, np.array([reward] * 7 + [1.0, 3.0]))
    assert advantages.values[:7].tolist() == [0] * 7
    assert advantages.values[7:].tolist() == pytest.approx([-1, 1], rel=2e-6)
    assert advantages.frac_reward_zero_std == 0.5


def test_a_prompt_that_began_to_differ_counts_no_longer():
    tracker = PerPromptStatTracker(buffer_size=32, min_count=2)
    assert tracker.update(["a", "a"], np.array([2.0, 2.0])).frac_reward_zero_std == 1
    later = tracker.update(["a", "a"], np.array([2.0, 6.0]))  # remembered: 2, 2, 2, 6; mean 3, std sqrt(3)
    assert later.frac_reward_zero_std == 0
    assert later.values.tolist() == pytest.approx([-1 / np.sqrt(3), 3 / np.sqrt(3)], rel=2e-6)


def test_an_equal_batch_is_counted_for_prompts_that_use_it():
    advantages = PerPromptStatTracker(32, min_count=16).update(["a", "b", "c"], np.array([0.3, 0.3, 0.3]))
    assert advantages.values.tolist() == [0, 0, 0]
    assert advantages.frac_reward_zero_std == 1


def test_images_without_a_reward_are_left_out():
    """Oracle: the same call without them; they get 0 themselves."""
    prompts, rewards = ["a", "b", "a", "b", "a", "a"], np.array([1.0, np.nan, np.nan, 4.0, 5.0, 6.0])
    for min_count in (2, 16):
        tracker, reference = PerPromptStatTracker(8, min_count), PerPromptStatTracker(8, min_count)
        values = tracker.update(prompts, rewards).values
        scored = [0, 3, 4, 5]
        expected = reference.update([prompts[i] for i in scored], rewards[scored]).values
        assert values[[1, 2]].tolist() == [0, 0]
        assert values[scored].tolist() == expected.tolist()
        assert tracker.state_dict() == reference.state_dict() == {"a": [1, 5, 6], "b": [4]}


def test_no_reward_at_all():
    tracker = PerPromptStatTracker(8, 1)
    advantages = tracker.update(["a", "b"], np.array([np.nan, np.nan]))
    assert advantages.values.tolist() == [0, 0]
    assert tracker.state_dict() == {}


def test_a_resumed_tracker_goes_on_as_if_nothing_had_happened():
    random = np.random.default_rng(1)
    tracker, resumed = PerPromptStatTracker(4, 2), PerPromptStatTracker(4, 2)
    for _ in range(3):
        tracker.update(["a", "b", "a"], random.normal(size=3))
    resumed.load_state_dict(json.loads(json.dumps(tracker.state_dict())))
    for _ in range(3):
        rewards = random.normal(size=3)
        assert (
            resumed.update(["b", "a", "c"], rewards).values.tolist()
            == tracker.update(["b", "a", "c"], rewards).values.tolist()
        )
    assert resumed.state_dict() == tracker.state_dict()


def test_a_state_is_not_a_view():
    tracker = PerPromptStatTracker(4, 1)
    tracker.update(["a"], np.array([1.0]))
    state = tracker.state_dict()
    tracker.update(["a"], np.array([2.0]))
    assert state == {"a": [1.0]}


@pytest.mark.parametrize(
    ("reward", "mean", "std", "expected"),
    [(3, 1, 2, 2 / (2 + 1e-6)), (np.nan, 1, 2, 0), (3, 1, 0, 0), (0, 1, 1e-6, -5e5)],
)
def test_standardise(reward, mean, std, expected):
    assert standardise(reward, mean, std) == expected


def test_without_scale_only_the_mean_is_taken():
    assert standardise(3, 1, 2, scale=False) == 2
    assert standardise(3, 1, 0, scale=False) == 0
    assert standardise(np.nan, 1, 2, scale=False) == 0


# ---- batch and group ----


def test_batch_by_hand():
    """1, 3, 8: mean 4, population std sqrt(26 / 3). The next rollout knows nothing of it."""
    baseline, rewards = BatchBaseline(), np.array([1.0, 8.0, 3.0])
    for _ in range(2):
        advantages = baseline.update(["cat", "dog", "cat"], rewards)
        assert advantages.values.tolist() == pytest.approx(
            ((rewards - 4) / (np.sqrt(26 / 3) + 1e-6)).tolist(), rel=1e-14
        )
        assert advantages.frac_reward_zero_std == 0
    assert baseline.state_dict() == {}
    assert BatchBaseline(scale=False).update(["cat", "dog", "cat"], rewards).values.tolist() == [-3, 4, -1]


def test_batch_leaves_out_images_without_a_reward():
    advantages = BatchBaseline().update(["a", "b", "a"], np.array([1.0, np.nan, 3.0]))
    assert advantages.values.tolist() == pytest.approx([-1, 0, 1], rel=2e-6)


@pytest.mark.parametrize("rewards", [[0.1 + 0.2] * 7, [np.nan] * 7, [np.nan] * 6 + [3.0]])
@pytest.mark.parametrize("baseline", [BatchBaseline, GroupBaseline])
def test_where_no_rewards_differ(baseline, rewards):
    advantages = baseline().update(["a"] * 7, np.array(rewards))
    assert advantages.values.tolist() == [0] * 7
    assert advantages.frac_reward_zero_std == 1


def test_group_by_hand():
    """ "cat": 1, 3 with mean 2 and std 1. "dog": equal rewards, which teach nothing and are counted. "fox": 0, 2, 4."""
    prompts, rewards = ["cat", "dog", "cat", "fox", "dog", "fox", "fox"], np.array([1.0, 0.3, 3.0, 0.0, 0.3, 2.0, 4.0])
    advantages = GroupBaseline().update(prompts, rewards)
    fox = 2 / (np.sqrt(8 / 3) + 1e-6)
    assert advantages.values.tolist() == pytest.approx([-1 / (1 + 1e-6), 0, 1 / (1 + 1e-6), -fox, 0, 0, fox], rel=1e-14)
    assert advantages.values[[1, 4]].tolist() == [0, 0]
    assert advantages.frac_reward_zero_std == pytest.approx(1 / 3)
    unscaled = GroupBaseline(scale=False).update(prompts, rewards)
    assert unscaled.values.tolist() == [-1, 0, 1, -2, 0, 0, 2]
    assert unscaled.frac_reward_zero_std == pytest.approx(1 / 3)


@pytest.mark.parametrize("scale", [True, False])
def test_group_is_the_formula_of_grpo(scale):
    """Oracle: rewards as a matrix (groups, images), as GRPO's code has them; the images come in any order."""
    random = np.random.default_rng(0)
    baseline = GroupBaseline(scale)
    for _ in range(3):
        matrix = random.normal(3, 2, size=(5, 4))
        centred = matrix - matrix.mean(axis=1, keepdims=True)
        expected = (centred / (matrix.std(axis=1, keepdims=True) + 1e-6) if scale else centred).ravel()
        prompts = np.repeat([f"prompt {group}" for group in range(5)], 4)
        order = random.permutation(20)
        advantages = baseline.update(prompts[order].tolist(), matrix.ravel()[order])
        np.testing.assert_allclose(advantages.values, expected[order], rtol=1e-12)
        assert advantages.frac_reward_zero_std == 0


def test_a_group_over_the_batch_by_hand():
    """
    "cat": 1, 3; "dog": equal; "fox": 0, 2, 4. All: mean 13.6 / 7, and one standard deviation for all. "dog" teaches nothing, and is
    counted, though the whole rollout has a standard deviation.
    """
    prompts, rewards = ["cat", "dog", "cat", "fox", "dog", "fox", "fox"], np.array([1.0, 0.3, 3.0, 0.0, 0.3, 2.0, 4.0])
    advantages = GroupOverBatchBaseline().update(prompts, rewards)
    std = np.sqrt((rewards**2).mean() - rewards.mean() ** 2) + 1e-6
    assert advantages.values.tolist() == pytest.approx(
        [-1 / std, 0, 1 / std, -2 / std, 0, 0, 2 / std], rel=1e-9, abs=1e-15
    )
    assert advantages.frac_reward_zero_std == pytest.approx(1 / 3)
    unscaled = GroupOverBatchBaseline(scale=False).update(prompts, rewards)
    assert unscaled.values.tolist() == [-1, 0, 1, -2, 0, 0, 2]


def test_groups_that_hardly_differ():
    """Noise of 1e-3 beside a group that differs by 2: its own standard deviation blows it up, the rollout's does not."""
    prompts, rewards = ["a", "a", "b", "b"], np.array([0.001, 0.0, 1.0, 3.0])
    assert GroupBaseline().update(prompts, rewards).values[0] == pytest.approx(1, abs=0.01)
    assert GroupOverBatchBaseline().update(prompts, rewards).values[0] < 0.001


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([3.0, 1.0, 2.0], [1.0, 0.0, 0.5]),
        ([5.0, 5.0, 1.0, 9.0], [0.5, 0.5, 0.0, 1.0]),  # 5 beats one of three, and ties with another: (1 + 1/2) / 3
        ([2.0, 2.0, 2.0], [0.5, 0.5, 0.5]),
        ([2.0, np.nan, 3.0], [0.0, np.nan, 1.0]),
        ([7.0], [0.5]),
        ([np.nan], [np.nan]),
        ([], []),
    ],
)
def test_win_rates_by_hand(rewards, expected):
    np.testing.assert_array_equal(win_rates(np.array(rewards)), expected)


def test_win_rates_of_many_images():
    """Each against each would take a gigabyte for each of a round of RWR's 10,000 images."""
    rewards = np.random.default_rng(0).integers(0, 300, 3000).astype(float)
    signs = np.sign(rewards[:100, None] - rewards)
    tracemalloc.start()
    rates = win_rates(rewards)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(rates[:100], ((signs + 1).sum(1) - 1) / 2 / 2999)
    assert peak < 2**20


def test_win_rates_are_compared_in_the_group():
    """An outlier counts no more than any best image: win rates 0, 1/2, 1 with mean 1/2 and standard deviation sqrt(1/6)."""
    prompts, rewards = ["a", "b", "a", "a", "b"], np.array([1.0, 3.0, 2.0, 1000.0, 3.0])
    advantages = WinRateBaseline().update(prompts, rewards)
    best = 0.5 / (np.sqrt(1 / 6) + 1e-6)
    assert advantages.values.tolist() == pytest.approx([-best, 0, 0, best, 0], rel=1e-9)
    assert advantages.frac_reward_zero_std == 0.5
    assert WinRateBaseline(scale=False).update(prompts, rewards).values.tolist() == [-0.5, 0, 0, 0.5, 0]
    missing = WinRateBaseline(scale=False).update(["a", "a", "a"], np.array([1.0, np.nan, 2.0]))
    assert missing.values.tolist() == [-0.5, 0, 0.5]


def test_an_unscaled_tracker_is_a_running_mean():
    tracker = PerPromptStatTracker(buffer_size=3, min_count=2, scale=False)
    assert tracker.update(["a", "b", "a"], np.array([1.0, 8.0, 3.0])).values.tolist() == [-1, 4, 1]
    assert tracker.update(["a"], np.array([8.0])).values.tolist() == [4]  # of 1, 3, 8
    assert tracker.update(["a"], np.array([1.0])).values.tolist() == [-3]  # of 3, 8, 1


def test_images_of():
    assert images_of(["b", "a", "b", "b"]) == {"b": [0, 2, 3], "a": [1]}
