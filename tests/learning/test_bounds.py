"""GRPO-Guard and Flow-DPPO: by hand on two images, their identities, and beside DDPO-IS."""

import math

import pytest
import torch
from support.trainers import FOUR_ANIMALS, logs_of, trained_weights

from trainer_ext import DDPOConfig
from trainer_ext.learning.bounds.flow_dppo import DivergenceMasked
from trainer_ext.learning.bounds.grpo_guard import GuardedImportanceSampling, ratio_norm
from trainer_ext.learning.losses import clipped_surrogate_loss, masked_surrogate_loss
from trainer_ext.learning.minibatch import Transitions
from trainer_ext.learning.policy_gradient import ImportanceSampling
from trainer_ext.policy.transitions.gaussian import TransitionTable

TABLE = TransitionTable(
    latents_coef=torch.tensor([0.9, 0.8]).double(),
    output_coef=torch.tensor([-0.5, -0.125]).double(),
    std=torch.tensor([0.5, 0.25]).double(),
)


def transitions(noise, advantages=(1.0, -2.0)):
    """Image 0 at step 0 and image 1 at step 1, both from latents 0 and old prediction 0, with this noise `(2, elements)`."""
    noise = torch.tensor(noise)
    std = TABLE.std.float()[:, None]
    zeros = torch.zeros_like(noise)
    return Transitions(TABLE, torch.arange(2), zeros, zeros, std * noise, torch.tensor(advantages))


def gradient(algorithm, minibatch, prediction):
    prediction = torch.tensor(prediction, requires_grad=True)
    output = algorithm.loss(minibatch, prediction)
    (found,) = torch.autograd.grad(output.loss, prediction)
    return output, found


# ---- GRPO-Guard ----


def test_ratio_norm_by_hand():
    """
    Image 0: output_coef / std = -1, prediction (0.2, -0.4), so shift (-0.2, 0.4); noise (1, 2): std * mean(z shift) = 0.5 * 0.3.
    Image 1: -0.5, prediction (1, 1), shift (-0.5, -0.5); noise (-1, 3): 0.25 * mean(0.5, -1.5) = -0.125.
    """
    found = ratio_norm(transitions([[1.0, 2.0], [-1.0, 3.0]]), torch.tensor([[0.2, -0.4], [1.0, 1.0]]))
    assert found.tolist() == pytest.approx([0.15, -0.125])


def test_ratio_norm_has_mean_zero_where_the_ratio_has_not():
    """Over the noise that was drawn, in which it is linear; -shift^2 / 2 is what the log-ratio is on average."""
    torch.manual_seed(0)
    minibatch = transitions(torch.randn(2, 200_000).tolist())
    prediction = torch.full((2, 200_000), 0.5)
    terms = minibatch.ratio_terms(prediction)
    assert ratio_norm(minibatch, prediction).abs().max() < 2e-3
    assert terms.log_ratio.tolist() == pytest.approx([-0.125, -0.03125], rel=0.05)


def test_every_step_pulls_equally_hard():
    """
    At the policy that sampled, the gradient is -A mean(z sign(output_coef)) / 2 images / 2 elements, at every step; DDPO-IS's is
    |output_coef| / std as large.
    """
    minibatch = transitions([[1.0, 2.0], [1.0, 2.0]], advantages=(1.0, 1.0))
    start = [[0.0, 0.0], [0.0, 0.0]]
    _, guarded = gradient(GuardedImportanceSampling(), minibatch, start)
    assert guarded.flatten().tolist() == pytest.approx([0.25, 0.5, 0.25, 0.5])
    _, plain = gradient(ImportanceSampling(), minibatch, start)
    assert plain.flatten().tolist() == pytest.approx([0.25, 0.5, 0.125, 0.25])


def test_it_clips_the_normalised_ratio():
    """exp(0.15) with advantage 1 is beyond 1.1, and has no gradient; exp(-0.125) with -2 is beyond 0.9: neither."""
    minibatch, prediction = transitions([[1.0, 2.0], [-1.0, 3.0]]), [[0.2, -0.4], [1.0, 1.0]]
    output, found = gradient(GuardedImportanceSampling(clip_range=0.1), minibatch, prediction)
    assert not found.any()
    assert output.loss.item() == pytest.approx((-1.1 / 0.5 + 2 * 0.9 / 0.125) / 2)
    assert output.metrics["clipfrac"] == 1
    output, _ = gradient(GuardedImportanceSampling(clip_range=0.2), minibatch, prediction)
    assert output.loss.item() == pytest.approx((-math.exp(0.15) / 0.5 + 2 * math.exp(-0.125) / 0.125) / 2)


def test_the_surrogate_with_weights_of_steps_by_hand():
    log_ratio, advantages = torch.tensor([0.0, 0.0], requires_grad=True), torch.tensor([1.0, 3.0])
    output = clipped_surrogate_loss(log_ratio, advantages, 0.1, torch.tensor([2.0, 4.0]))
    output.loss.backward()
    assert output.loss.item() == -7
    assert log_ratio.grad.tolist() == [-1, -6]


# ---- Flow-DPPO ----


@pytest.mark.parametrize(
    ("log_ratio", "kl", "advantage", "kept"),
    [
        pytest.param(0.5, 2e-5, 1.0, False, id="far, and would move on: more of a good image"),
        pytest.param(-0.5, 2e-5, -1.0, False, id="far, and would move on: less of a bad image"),
        pytest.param(0.5, 1e-5, 1.0, False, id="exactly as far as is too far"),
        pytest.param(-0.5, 2e-5, 1.0, True, id="far, and comes back"),
        pytest.param(0.5, 2e-5, -1.0, True, id="far, and comes back from a bad image"),
        pytest.param(0.5, 9e-6, 1.0, True, id="near: never clipped, however large the ratio"),
        pytest.param(0.0, 0.0, 1.0, True, id="the policy that sampled: REINFORCE's gradient"),
    ],
)
def test_the_mask(log_ratio, kl, advantage, kept):
    given = torch.tensor([log_ratio], requires_grad=True)
    output = masked_surrogate_loss(given, torch.tensor([kl]), torch.tensor([advantage]), 1e-5)
    output.loss.backward()
    expected = -advantage * math.exp(log_ratio) if kept else 0.0
    assert output.loss.item() == pytest.approx(expected)
    assert given.grad.item() == pytest.approx(expected)
    assert output.metrics["clipfrac"] == (not kept)


def test_the_mask_sees_the_divergence_of_the_steps():
    """
    Image 0: shift (-0.2, 0.4), KL mean(shift^2) / 2 = 0.05, log-ratio 0.3 - 0.05 > 0. Image 1: KL 0.125, log-ratio -0.5 - 0.125
    with advantage -2.
    """
    minibatch, prediction = transitions([[1.0, 2.0], [-1.0, 3.0]]), [[0.2, -0.4], [1.0, 1.0]]
    output, found = gradient(DivergenceMasked(kl_threshold=0.1), minibatch, prediction)
    assert output.loss.item() == pytest.approx(-math.exp(0.25) / 2)
    assert found[0].any()
    assert not found[1].any()


# ---- in a run ----


@pytest.mark.parametrize("algorithm", ["grpo_guard", pytest.param("flow_dppo", marks=pytest.mark.full)])
def test_they_train(make_trainer, algorithm):
    """Several updates on a rollout, the first of which is at ratio 1, with a KL term beside."""
    batches = {"num_images_per_rollout": 8, "rollout_batch_size": 8, "advantages": "batch"}
    trainer = make_trainer(
        dataset=FOUR_ANIMALS,
        algorithm=algorithm,
        clip_range=1e-3,
        kl_threshold=1e-6,
        beta=1e-3,
        learning_rate=1e-2,
        **batches,
    )
    before = trained_weights(trainer.model)
    trainer.train()
    assert any((value != before[name]).any() for name, value in trained_weights(trainer.model).items())
    (log, *_) = logs_of(trainer, "clipfrac")
    assert log["clipfrac"] > 0
    assert log["ratio"] != 1  # after the first update on the rollout


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("ddpo_is", ImportanceSampling), ("grpo_guard", GuardedImportanceSampling)]
)
def test_a_clip_range_that_nobody_gave_is_the_algorithm_s(tmp_path, algorithm, kind):
    """As an option, by name beside other options, and of an object; and what is given stays."""
    expected = {"ddpo_is": 1e-4, "grpo_guard": 2e-6}[algorithm]
    named, plain, given = (
        DDPOConfig(str(tmp_path), use_cpu=True, **options)
        for options in ({"algorithm": algorithm}, {}, {"clip_range": 0.1})
    )
    for chosen in (named.resolve_algorithm(None), plain.resolve_algorithm(algorithm), kind()):
        assert chosen.clip_range == expected
    assert given.resolve_algorithm(algorithm) == kind(0.1)


def test_a_clip_range_of_another_algorithm_is_named(caplog):
    GuardedImportanceSampling(9e-5)
    assert not caplog.records
    GuardedImportanceSampling(1e-4)
    assert "clip_range is 0.0001, and the ratios of 'grpo_guard' are normalised" in caplog.text


def test_their_options_reach_them(make_trainer):
    assert make_trainer(algorithm="grpo_guard", clip_range=3e-5).algorithm.algorithm == GuardedImportanceSampling(3e-5)
    assert make_trainer(algorithm="flow_dppo", kl_threshold=1e-3).algorithm.algorithm == DivergenceMasked(1e-3)
