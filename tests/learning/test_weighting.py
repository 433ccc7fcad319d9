import json
import math
from functools import partial

import numpy as np
import pytest

from trainer_ext.learning.advantages import PerPromptStatTracker
from trainer_ext.learning.weighting import AdvantageWeighting, RegressionWeighting, quantile_weights, softmax_weights
from trainer_ext.options import DDPOOptions


def update(weighting, prompts, rewards, weights=(1.0,)):
    """With the total as rewards are summed when none is missing."""
    rewards = np.array(rewards, np.float64).reshape(len(prompts), -1)
    return weighting.update(prompts, rewards, rewards @ np.array(weights))


# ---- RWR: softmax ----


def test_softmax_weights_by_hand():
    """exp(0.2 * r) of 0, 5, 10 is 1, e, e^2, of which the mean is taken out."""
    mean = (1 + math.e + math.e**2) / 3
    weights = softmax_weights(np.array([0.0, 5.0, 10.0]), 0.2)
    assert weights.tolist() == pytest.approx([1 / mean, math.e / mean, math.e**2 / mean], rel=1e-12)


def test_softmax_weights_are_1_on_average_and_know_no_offset():
    rewards = np.random.default_rng(0).normal(-3, 4, size=50)
    weights = softmax_weights(rewards, 0.7)
    assert weights.mean() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(weights, 50 * np.exp(0.7 * rewards) / np.exp(0.7 * rewards).sum(), rtol=1e-12)
    np.testing.assert_allclose(softmax_weights(rewards + 100, 0.7), weights, rtol=1e-9)


@pytest.mark.parametrize("size", [1e4, 1e300])
def test_huge_rewards_do_not_overflow(size):
    assert softmax_weights(np.array([size, 0.0, -size, size]), 1.0).tolist() == [2, 0, 0, 2]


def test_one_image_or_none():
    for weigh in (partial(softmax_weights, beta=0.2), partial(quantile_weights, quantile=0.9)):
        assert weigh(np.array([-7.0])).tolist() == [1]
        assert weigh(np.array([])).tolist() == []


# ---- sparse RWR: quantile ----


def test_quantile_weights_by_hand():
    """The median of 1, 2, 3, 4 is 2.5; the 0.9-quantile of 0 ... 10 is 9, which is kept: at or above."""
    assert quantile_weights(np.array([4.0, 1.0, 3.0, 2.0]), 0.5).tolist() == [1, 0, 1, 0]
    assert quantile_weights(np.arange(11.0), 0.9).tolist() == [0] * 9 + [1, 1]
    assert quantile_weights(np.array([0.1 + 0.2] * 7), 0.9).tolist() == [1] * 7
    assert quantile_weights(np.arange(5.0), 0.0).tolist() == [1] * 5


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_quantile_weights_keep_the_best(quantile):
    """Oracle: sort; the quantile lies between the two rewards around position q * (n - 1)."""
    rewards = np.random.default_rng(1).normal(size=57)
    position = quantile * 56
    below, above = (np.sort(rewards)[round_(position)] for round_ in (math.floor, math.ceil))
    threshold = below + (above - below) * (position - math.floor(position))
    weights = quantile_weights(rewards, quantile)
    assert weights.tolist() == [float(reward >= threshold) for reward in rewards]
    assert weights.sum() == 57 - math.ceil(position)


# ---- what a group is ----

PROMPTS = ["cat", "dog", "cat", "dog", "dog"]
REWARDS = [1.0, 2.0, 3.0, 100.0, 2.0]


def test_softmax_per_prompt_and_over_the_rollout():
    softmax = partial(softmax_weights, beta=0.5)
    cat, dog = np.exp([0.5, 1.5]), np.exp([1.0, 50.0, 1.0])
    cat, dog = cat / cat.mean(), dog / dog.mean()
    per_prompt = update(RegressionWeighting(softmax, per_prompt=True), PROMPTS, REWARDS)
    assert per_prompt.values.tolist() == pytest.approx([cat[0], dog[0], cat[1], dog[1], dog[2]], rel=1e-12)
    everything = np.exp(0.5 * np.array(REWARDS))
    batch = update(RegressionWeighting(softmax, per_prompt=False), PROMPTS, REWARDS)
    assert batch.values.tolist() == pytest.approx((everything / everything.mean()).tolist(), rel=1e-12)
    assert per_prompt.frac_reward_zero_std == batch.frac_reward_zero_std == 0


def test_quantile_per_prompt_and_over_the_rollout():
    best = partial(quantile_weights, quantile=0.9)
    assert update(RegressionWeighting(best, per_prompt=True), PROMPTS, REWARDS).values.tolist() == [0, 0, 1, 1, 0]
    assert update(RegressionWeighting(best, per_prompt=False), PROMPTS, REWARDS).values.tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("per_prompt", [True, False])
@pytest.mark.parametrize(
    "weigh", [partial(softmax_weights, beta=0.5), partial(quantile_weights, quantile=0.6)], ids=["softmax", "quantile"]
)
def test_an_image_without_a_reward_weighs_nothing(weigh, per_prompt):
    """Oracle: the same call without it. "fox" has no reward at all."""
    prompts, rewards = [*PROMPTS, "cat", "fox"], [*REWARDS, np.nan, np.nan]
    weighting = RegressionWeighting(weigh, per_prompt)
    advantages, without = update(weighting, prompts, rewards), update(weighting, PROMPTS, REWARDS)
    assert advantages.values.tolist() == [*without.values.tolist(), 0, 0]
    assert advantages.frac_reward_zero_std == (pytest.approx(1 / 3) if per_prompt else 0)


def test_groups_that_teach_nothing_are_counted():
    """They still weigh 1 each: a regression goes on imitating them."""
    advantages = update(
        RegressionWeighting(partial(softmax_weights, beta=0.2), per_prompt=True), ["a", "b", "a", "c"], [1, 2, 3, 4]
    )
    assert advantages.frac_reward_zero_std == pytest.approx(2 / 3)
    assert advantages.values[[1, 3]].tolist() == [1, 1]


def test_a_regression_remembers_nothing():
    weighting = RegressionWeighting(partial(softmax_weights, beta=0.2), per_prompt=True)
    update(weighting, PROMPTS, REWARDS)
    assert weighting.state_dict() == []
    weighting.load_state_dict(json.loads(json.dumps(weighting.state_dict())))
    assert update(weighting, ["cat", "cat"], [5.0, 5.0]).values.tolist() == [1, 1]


# ---- DDPO: advantages of several rewards ----

TWO = np.array([[1.0, 10.0], [3.0, 40.0], [5.0, 10.0]])  # standard deviations sqrt(8 / 3) and sqrt(200)
WEIGHTS = np.array([2.0, -1.0])


def test_sum_then_normalize_by_hand():
    """Totals 2 * r0 - r1 are -8, -34, 0: mean -14, population std sqrt((36 + 400 + 196) / 3)."""
    weighting = AdvantageWeighting(DDPOOptions(advantages="batch"), WEIGHTS)
    advantages = update(weighting, ["a", "b", "c"], TWO, WEIGHTS)
    std = math.sqrt(632 / 3) + 1e-6
    assert advantages.values.tolist() == pytest.approx([6 / std, -20 / std, 14 / std], rel=1e-12)


def test_normalize_then_sum_by_hand():
    """Reward 0: -2, 0, 2 over sqrt(8 / 3). Reward 1: -10, 20, -10 over sqrt(200)."""
    options = DDPOOptions(advantages="batch", multi_objective_aggregation="normalize_then_sum")
    advantages = update(AdvantageWeighting(options, WEIGHTS), ["a", "b", "c"], TWO, WEIGHTS)
    first, second = math.sqrt(8 / 3) + 1e-6, math.sqrt(200) + 1e-6
    expected = [-4 / first + 10 / second, -20 / second, 4 / first + 10 / second]
    assert advantages.values.tolist() == pytest.approx(expected, rel=1e-12)


def test_gdpo_by_hand():
    """
    Two prompts; each reward is standardised in its group: (-1, 1) for both prompts of reward 0, and (1, -1) and (0, 0) of reward 1.
    Weighted sums with 2 and 1: -1, 1, -2, 2, of which the standard deviation is sqrt(10 / 4).
    """
    options = DDPOOptions(advantages="group", multi_objective_aggregation="gdpo")
    rewards = [[0.0, 30.0], [1.0, 10.0], [5.0, 7.0], [500.0, 7.0]]
    advantages = update(AdvantageWeighting(options, np.array([2.0, 1.0])), ["a", "a", "b", "b"], rewards, [2.0, 1.0])
    expected = np.array([-1, 1, -2, 2]) / math.sqrt(10 / 4)
    assert advantages.values.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert advantages.frac_reward_zero_std == 0.25


def test_gdpo_leaves_out_images_without_a_reward():
    options = DDPOOptions(advantages="group", multi_objective_aggregation="gdpo")
    rewards = np.array([[0.0, 1.0], [1.0, 2.0], [np.nan, np.nan], [np.nan, np.nan]])
    total = rewards.sum(1)
    values = AdvantageWeighting(options, np.ones(2)).update(["a", "a", "a", "b"], rewards, total).values
    assert values.tolist() == pytest.approx([-1, 1, 0, 0], rel=1e-5)


def test_normalize_then_sum_does_not_care_for_the_unit_of_a_reward():
    def values(aggregation, unit):
        options = DDPOOptions(advantages="batch", multi_objective_aggregation=aggregation)
        rewards = TWO * np.array([1, unit])
        return update(AdvantageWeighting(options, np.ones(2)), ["a", "b", "c"], rewards, np.ones(2)).values

    np.testing.assert_allclose(values("normalize_then_sum", 1), values("normalize_then_sum", 1000), rtol=1e-5)
    assert abs(values("sum_then_normalize", 1) - values("sum_then_normalize", 1000)).max() > 0.1


def test_one_reward_is_the_same_both_ways():
    for weight in (1.0, 3.0):
        both = [
            update(
                AdvantageWeighting(
                    DDPOOptions(advantages="group", multi_objective_aggregation=aggregation), np.array([weight])
                ),
                PROMPTS,
                REWARDS,
                [weight],
            ).values
            for aggregation in ("sum_then_normalize", "normalize_then_sum")
        ]
        # a weight scales what is summed, and normalising takes it out again; after normalising it stays
        np.testing.assert_allclose(both[1], weight * both[0], rtol=1e-5)


def test_where_one_of_two_rewards_is_missing():
    """Normalised on its own, a reward that an image lacks adds nothing; the other counts as ever."""
    options = DDPOOptions(
        advantages="batch",
        multi_objective_aggregation="normalize_then_sum",
        scale_rewards=False,
        advantage_clip=100.0,
    )
    rewards = np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 8.0], [np.nan, np.nan]])
    advantages = AdvantageWeighting(options, np.array([1.0, 10.0])).update(list("abcd"), rewards, np.zeros(4))
    assert advantages.values.tolist() == [-2, -20, 2 + 20, 0]


def test_silent_prompts_are_counted_for_each_reward():
    """Of reward 0, "a" is silent and "b" is not; of reward 1 both are: 3 of 4."""
    prompts, rewards = ["a", "a", "b", "b"], [[1, 5], [1, 5], [1, 6], [2, 6]]
    each = DDPOOptions(advantages="group", multi_objective_aggregation="normalize_then_sum")
    assert update(AdvantageWeighting(each, np.ones(2)), prompts, rewards, np.ones(2)).frac_reward_zero_std == 0.75
    together = DDPOOptions(advantages="group")
    assert update(AdvantageWeighting(together, np.ones(2)), prompts, rewards, np.ones(2)).frac_reward_zero_std == 0.5


def test_the_sum_is_clipped():
    """Seven equal rewards and one outlier: its advantage is sqrt(7), the others' -1 / sqrt(7)."""
    rewards = [0.0] * 7 + [1.0]
    for clip, expected in ((5.0, math.sqrt(7)), (2.0, 2.0)):
        options = DDPOOptions(advantages="batch", advantage_clip=clip)
        values = update(AdvantageWeighting(options, np.ones(1)), ["a"] * 8, rewards).values
        assert values[7] == pytest.approx(expected, rel=1e-5)
        assert values[:7].tolist() == pytest.approx([-1 / math.sqrt(7)] * 7, rel=1e-5)
    options = DDPOOptions(advantages="batch", advantage_clip=2.0, multi_objective_aggregation="normalize_then_sum")
    two = np.stack([rewards, rewards], axis=1)
    opposite = update(AdvantageWeighting(options, np.array([1.0, -0.5])), ["a"] * 8, two, [1.0, -0.5]).values
    assert opposite[7] == pytest.approx(math.sqrt(7) / 2, rel=1e-5)  # clipped first it would be 2 - 1
    assert update(AdvantageWeighting(options, -np.ones(2)), ["a"] * 8, two, -np.ones(2)).values[7] == -2


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_a_resumed_weighting_goes_on_as_if_nothing_had_happened(aggregation):
    options = DDPOOptions(stat_buffer_size=4, stat_min_count=2, multi_objective_aggregation=aggregation)
    weights, random = np.array([1.0, -3.0, 0.5]), np.random.default_rng(0)
    weighting, resumed = AdvantageWeighting(options, weights), AdvantageWeighting(options, weights)
    for _ in range(3):
        update(weighting, ["a", "b", "a"], random.normal(size=(3, 3)), weights)
    state = json.loads(json.dumps(weighting.state_dict()))
    assert len(state) == (1 if aggregation == "sum_then_normalize" else 3)
    resumed.load_state_dict(state)
    for _ in range(3):
        rewards = random.normal(size=(3, 3))
        both = [update(each, ["b", "a", "c"], rewards, weights).values.tolist() for each in (weighting, resumed)]
        assert both[0] == both[1]
    assert resumed.state_dict() == weighting.state_dict()


def test_per_prompt_advantages_are_the_trackers():
    options = DDPOOptions(stat_buffer_size=4, stat_min_count=2, scale_rewards=False, advantage_clip=0.5)
    weighting, tracker = AdvantageWeighting(options, np.ones(1)), PerPromptStatTracker(4, 2, scale=False)
    random = np.random.default_rng(0)
    for _ in range(4):
        rewards = random.normal(size=3)
        expected = tracker.update(["a", "b", "a"], rewards).values.clip(-0.5, 0.5)
        assert update(weighting, ["a", "b", "a"], rewards).values.tolist() == expected.tolist()
