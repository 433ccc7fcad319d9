"""The formulas of over-optimisation, against arithmetic by hand."""

import numpy as np
import pytest
from scipy import stats

from trainer_ext.runs.measures import evaluation_figures
from trainer_ext.runs.measures.formulas import collapsed, disagreement, drifted, gold, matched, win_rates
from trainer_ext.runs.measures.paired import bootstrapped_figure

HELD_OUT = ["rewards/a", "rewards/b"]


def evaluation(**columns):
    """Records of the same rows, with one column each."""
    length = len(next(iter(columns.values())))
    named = {name.replace("__", "/"): values for name, values in columns.items()}
    return [
        {"row": i, "seed": i, "prompt": "a cat", **{name: values[i] for name, values in named.items()}}
        for i in range(length)
    ]


def test_gold_by_hand():
    """a: base 1, 3 (mean 2, std 1), now mean 4: +2. b: base 0, 10 (mean 5, std 5), now mean 0: -1. Mean +0.5."""
    base = evaluation(rewards__a=[1.0, 3.0], rewards__b=[0.0, 10.0])
    now = evaluation(rewards__a=[3.0, 5.0], rewards__b=[0.0, 0.0])
    assert gold(now, base, HELD_OUT) == 0.5
    assert gold(base, base, HELD_OUT) == 0.0
    assert gold(now, base, []) is None


def test_gold_of_an_image_that_lacks_one_of_two_rewards():
    """a: base mean 2, std 1; b: mean 5, std 5. The first image is judged by both, +0 and +0, the second by b alone, +2: mean 1."""
    base = evaluation(rewards__a=[1.0, 3.0], rewards__b=[0.0, 10.0])
    now = evaluation(rewards__a=[1.0, None], rewards__b=[0.0, 20.0])
    assert gold(now, base, HELD_OUT) == 1.0


@pytest.mark.parametrize(
    ("base", "now", "expected"),
    [
        ([1.0, 3.0, None], [5.0, None, 5.0], 4.0),  # the image that has it in both
        ([2.0, 2.0, 2.0], [5.0, 5.0, 5.0], None),  # nothing to measure by
        ([None, None, None], [5.0, 5.0, 5.0], None),
    ],
)
def test_gold_of_what_is_missing_or_equal(base, now, expected):
    assert gold(evaluation(rewards__a=now), evaluation(rewards__a=base), ["rewards/a"]) == expected


def test_win_rates_are_those_of_the_mann_whitney_statistic():
    generator = np.random.default_rng(0)
    values, others = generator.integers(0, 5, 40).astype(float), generator.integers(0, 5, 30).astype(float)
    expected = stats.mannwhitneyu(values, others).statistic / (40 * 30)
    assert win_rates(values, others).mean() == pytest.approx(expected)


def test_disagreement_is_gardos_equation():
    """
    Eq. 7: the image that the proxy overrates most has the highest uncertainty. Against the base's rewards 0 and 1: the trained
    reward 2 wins against all (1), the held-out ones -1 and 0.5 against none and half: U = 1 - 0.25 = 0.75.
    """
    base = evaluation(reward=[0.0, 1.0], rewards__a=[0.0, 1.0], rewards__b=[0.0, 1.0])
    now = evaluation(reward=[2.0, 2.0], rewards__a=[-1.0, -1.0], rewards__b=[0.5, 0.5])
    assert disagreement(now, base, HELD_OUT) == 0.75
    assert disagreement(base, base, HELD_OUT) == 0.0
    assert disagreement(now, base, []) is None
    partly = evaluation(reward=[2.0, None], rewards__a=[-1.0, -1.0], rewards__b=[None, 0.5])
    assert disagreement(partly, base, HELD_OUT) == 1.0


def rows(*diversities):
    """Two images of each row."""
    return [
        {"row": row, "seed": 10 * image + row, "prompt": "a cat", "diversity": value}
        for row, value in enumerate(diversities)
        for image in range(2)
    ]


def test_a_prompt_has_collapsed_below_half_of_its_diversity():
    assert collapsed(rows(0.19, 0.2, 0.5), rows(0.4, 0.4, 0.4)) == pytest.approx(1 / 3)
    assert collapsed(rows(None, None), rows(None, None)) is None


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([0.5, 0.65, 0.71], ["pixels/darkness"]),  # base std 0.1
        ([0.5, 0.35, 0.29], ["pixels/darkness"]),
        ([0.5, 0.65, 0.69], []),  # within two standard deviations
        ([0.5, 0.8, 0.75], []),  # not one way
        ([0.5, 0.8], []),  # too few
    ],
)
def test_pixels_that_drift(means, expected):
    records = [evaluation(pixels__darkness=[mean - 0.1, mean + 0.1], reward=[1.0, 1.0]) for mean in means]
    assert drifted(records) == expected


def test_only_images_that_are_in_both_are_compared():
    base = evaluation(reward=[1.0, 2.0, 3.0])
    now = [*evaluation(reward=[4.0, 5.0])[1:], {"row": 9, "seed": 9, "prompt": "a dog", "reward": 0.0}]
    records, before = matched(now, base)
    assert [record["reward"] for record in records] == [5.0]
    assert [record["reward"] for record in before] == [2.0]


def test_figures_of_an_evaluation():
    base = evaluation(reward=[0.0, 2.0], rewards__a=[0.0, 2.0], detectors__blank=[0.0, 0.0], kl=[0.0, None])
    now = evaluation(reward=[3.0, None], rewards__a=[None, None], detectors__blank=[0.25, 0.75], kl=[4.0, None])
    figures = evaluation_figures(now, base, ["rewards/a"])
    assert np.isnan([figures.pop(name) for name in ("rewards/a/mean", "gold", "disagreement")]).all()
    assert figures == {
        "reward": 3.0,
        "reward_std": 0.0,
        "detectors/blank/mean": 0.5,
        "detectors/blank/max": 0.75,
        "kl": 4.0,
    }
    assert evaluation_figures(base, base, ["rewards/a"])["gold"] == 0.0


def test_the_bootstrapped_interval():
    """Of many values it is that of the normal distribution, and it is the same each time."""
    difference = np.random.default_rng(0).normal(1.0, 2.0, 400)
    pairs = np.stack([np.zeros(400), difference], axis=1)
    figure = bootstrapped_figure(pairs)
    half = 1.96 * difference.std() / 20
    assert (figure.low, figure.high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.02)
    assert bootstrapped_figure(pairs) == figure
    assert str(bootstrapped_figure(pairs[:1])).endswith("n = 1, same prompts and seeds")


@pytest.mark.parametrize("count", [2, 10])
def test_the_interval_of_few_values_is_as_wide_as_students(count):
    difference = np.random.default_rng(1).normal(size=count)
    figure = bootstrapped_figure(np.stack([np.zeros(count), difference], axis=1))
    expected = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    assert (figure.low, figure.high) == pytest.approx((expected.low, expected.high))
