"""Which steps an evaluation compares with the model before training, and what they stand for."""

import numpy as np
import pytest

from trainer_ext.monitoring.divergence import Turns


def estimate(divergences, shares, evaluation):
    """The mean that is logged, and the steps that were measured, in batches of five."""
    weighted, seen = [], []
    for rank, share in enumerate(shares):
        turns = Turns.of(shares, rank, evaluation)
        for first in range(0, share + 5, 5):
            steps, weights = turns.chosen(first, 5, len(divergences))
            seen += steps.tolist()
            weighted += (weights * divergences[steps.numpy()]).tolist()
    assert len(seen) == sum(shares) == len(weighted)
    return np.mean(weighted), seen


@pytest.mark.parametrize(
    ("num_steps", "shares", "evaluations"),
    [(50, [32], 2), (50, [16, 16], 2), (20, [32], 1), (5, [4, 3], 1), (7, [1], 7), (50, [6], 72), (1, [3], 1)],
    ids=str,
)
def test_all_steps_have_their_turn_and_the_mean_is_unbiased(num_steps, shares, evaluations):
    """Over `evaluations` the mean is the sum over steps, though the divergences of the last steps are far larger."""
    divergences = np.exp(np.arange(num_steps) / 5)
    found = [estimate(divergences, shares, index) for index in range(evaluations)]
    assert {step for _, seen in found for step in seen} == set(range(num_steps))
    assert np.mean([value for value, _ in found]) == pytest.approx(divergences.sum())
