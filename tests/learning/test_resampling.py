"""RWR with images that are drawn in proportion to their weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from support.trainers import FOUR_ANIMALS, prompts

from trainer_ext.errors import ConfigError
from trainer_ext.learning.algorithms import resolve_algorithm
from trainer_ext.learning.batches import forward_passes, training_batch
from trainer_ext.learning.order import resampled
from trainer_ext.learning.regression import SparseRewardWeightedRegression
from trainer_ext.learning.rollout import Rollout
from trainer_ext.learning.weighting import softmax_weights
from trainer_ext.options import DDPOOptions
from trainer_ext.policy.recording.conditioning import Conditioning
from trainer_ext.policy.recording.trajectory import FinalLatents
from trainer_ext.policy.transitions.gaussian import TransitionTable
from trainer_ext.policy.transitions.own import own_noising


def counts(weights, seed):
    """How often each image is drawn."""
    drawn = resampled(torch.tensor(weights), torch.Generator().manual_seed(seed))
    assert len(drawn) == len(weights)
    return torch.bincount(drawn, minlength=len(weights))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param([0.0, 2.0, 1.0, 1.0], [0, 2, 1, 1], id="whole numbers"),
        pytest.param([0.0, 6.0, 3.0, 3.0], [0, 2, 1, 1], id="of any scale"),
        pytest.param([0.0, 0.0, 0.0, 0.5], [0, 0, 0, 4], id="one image"),
        pytest.param([1e30, 0.0, 0.0], [3, 0, 0], id="one large weight"),
        pytest.param([0.0, 0.0, 0.0], [1, 1, 1], id="no weight at all"),
        pytest.param([7.0], [1], id="one image alone"),
    ],
)
def test_counts_by_hand(weights, expected):
    for seed in range(50):
        assert counts(weights, seed).tolist() == expected


def test_images_are_drawn_in_proportion_and_in_a_new_order():
    weights = [0.5, 1.75, 0.0, 2.75, 0.0]  # mean 1
    found = torch.stack([counts(weights, seed) for seed in range(2000)])
    for column, weight in zip(found.T, weights, strict=True):
        assert set(column.tolist()) <= {int(weight), int(weight) + bool(weight % 1)}, "never a whole time more or less"
        assert column.double().mean().item() == pytest.approx(weight, abs=4 * 0.5 / 2000**0.5)
    orders = {
        tuple(resampled(torch.tensor(weights), torch.Generator().manual_seed(seed)).tolist()) for seed in range(50)
    }
    assert len(orders) > 20
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert torch.equal(*(resampled(torch.tensor(weights), generator) for generator in generators))


def test_more_images_than_float32_can_count():
    weights = torch.full((100_000,), 1e-3)
    assert torch.equal(resampled(weights, torch.Generator().manual_seed(0)).sort().values, torch.arange(100_000))


def bound(rewards, beta=2.0, **options):
    """RWR on four images that are one number each, which a denoiser that predicts images is asked for; and their rollout."""
    options = DDPOOptions(algorithm="rwr", rwr_beta=beta, **options)
    solver = DDIMScheduler(prediction_type="sample")
    solver.set_timesteps(2)
    table = TransitionTable.without_noise(2)
    algorithm = resolve_algorithm(None, options).bind(options, np.ones(1), table, own_noising(solver))
    weights = torch.from_numpy(algorithm.weighting.update(["a cat"] * len(rewards), rewards[:, None], rewards).values)
    data = FinalLatents(
        torch.arange(len(rewards)).reshape(-1, 1, 1, 1).float(), Conditioning((), torch.tensor([]), torch.tensor([]))
    )
    return algorithm, Rollout(0, data, weights.float())


def slope(algorithm, rollout, seed):
    """The loss of a pass with the prediction 0.5 for all images, and its gradient."""
    batch = training_batch(algorithm, rollout, torch.arange(len(rollout)), 0.5, seed, 0)
    (forward,) = forward_passes(algorithm, batch, len(rollout))
    value = torch.tensor(0.5, requires_grad=True)
    loss = algorithm.loss(forward.minibatch, value.expand(len(rollout), 1, 1, 1)).loss
    return torch.stack([loss.detach(), torch.autograd.grad(loss, value)[0]]).double()


@pytest.mark.parametrize("share", [1.0, 0.25], ids=["mean weight 1", "a process whose images have a quarter of it"])
def test_the_expected_loss_and_gradient_are_those_of_the_weighted_loss(share):
    rewards = np.array([0.0, 0.1, 0.5, 0.9])
    algorithm, rollout = bound(rewards, rwr_resample=True)
    weights = softmax_weights(rewards, 2.0) * share
    rollout = replace(rollout, weights=rollout.weights * share)
    found = torch.stack([slope(algorithm, rollout, seed) for seed in range(600)])
    errors = 0.5 - np.arange(4)
    expected = [(weights * errors**2).mean(), (weights * 2 * errors).mean()]
    plain = slope(*bound(rewards), 0) * share
    assert plain.tolist() == pytest.approx(expected, rel=1e-5), "without resampling, in each pass"
    for column, value in zip(found.T, expected, strict=True):
        assert column.mean().item() == pytest.approx(value, abs=4 * column.std().item() / 600**0.5)
        assert len(column.unique()) > 1


def test_a_pass_is_a_pure_function_of_seed_rollout_pass_and_process():
    algorithm, rollout = bound(np.random.default_rng(0).normal(size=32), rwr_resample=True)

    def images(seed=0, index=0, inner_epoch=0, process=0):
        here = replace(rollout, index=index)
        positions = inner_epoch * len(rollout) + torch.arange(len(rollout))
        return training_batch(algorithm, here, positions, 1.0, seed, process).images.tolist()

    assert images() == images()
    others = [images(seed=1), images(index=1), images(inner_epoch=1), images(process=1)]
    assert all(other != images() for other in others)
    halves = [training_batch(algorithm, rollout, torch.arange(16) + first, 1.0, 0, 0).images for first in (0, 16)]
    assert torch.cat(halves).tolist() == images(), "in batches of any size"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rwr_resample": True}, "the algorithm is 'ddpo_is', which does not draw images.*Set algorithm='rwr'"),
        ({"rwr_resample": True, "algorithm": "sparse_rwr"}, "the algorithm is 'sparse_rwr', which does not draw"),
        ({"algorithm": "rwr"}, "one image of each.*num_images_per_rollout=4 is not more than the 4 prompts"),
        ({"algorithm": SparseRewardWeightedRegression()}, "'sparse_rwr' weighs the images of a prompt.*2 or more, or"),
    ],
)
def test_what_would_have_no_effect_is_refused(make_trainer, options, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer(model="no such model", dataset=FOUR_ANIMALS, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"advantages": "batch"},
        {"num_images_per_prompt": 2},
        {"num_images_per_rollout": 8},
        {"dataset": prompts(*["a cat"] * 2, "a dog", "a bear")},
    ],
    ids=str,
)
def test_images_that_have_others_to_be_weighed_against(make_trainer, options):
    make_trainer(**{"dataset": FOUR_ANIMALS, "algorithm": "rwr", **options})
