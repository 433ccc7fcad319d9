import math
from functools import partial

import numpy as np
import pytest
import torch

from trainer_ext.learning.losses import clipped_surrogate_loss, score_function_loss, weighted_denoising_loss
from trainer_ext.learning.weighting import RegressionWeighting, quantile_weights, softmax_weights
from trainer_ext.policy.transitions.gaussian import TransitionTable, kl_divergence, ratio_terms
from trainer_ext.policy.transitions.noising import NoisingTable

CLIP = 0.2


def surrogate(log_ratio, advantage):
    log_ratio = torch.tensor([log_ratio], requires_grad=True)
    output = clipped_surrogate_loss(log_ratio, torch.tensor([advantage]), CLIP)
    output.loss.backward()
    return output.loss.item(), log_ratio.grad.item()


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss", "grad"),
    [
        pytest.param(0.0, 1.0, -1.0, -1.0, id="on-policy: gradient is REINFORCE's"),
        pytest.param(0.1, 1.0, -math.exp(0.1), -math.exp(0.1), id="inside the clip range"),
        pytest.param(1.0, 1.0, -1.2, 0.0, id="good action, already more likely: clipped, no gradient"),
        pytest.param(-1.0, 1.0, -math.exp(-1), -math.exp(-1), id="good action, less likely: never clipped"),
        pytest.param(-1.0, -1.0, 0.8, 0.0, id="bad action, already less likely: clipped, no gradient"),
        pytest.param(1.0, -1.0, math.e, math.e, id="bad action, more likely: never clipped"),
    ],
)
def test_clipped_surrogate(log_ratio, advantage, loss, grad):
    assert surrogate(log_ratio, advantage) == pytest.approx((loss, grad))


def test_before_the_first_update_it_is_reinforce():
    """Ratio 1: the gradient of -mean(advantage * log p), for every sign of the advantage."""
    log_ratio, advantages = torch.zeros(6, requires_grad=True), torch.randn(6)
    clipped_surrogate_loss(log_ratio, advantages, 1e-4).loss.backward()
    torch.testing.assert_close(log_ratio.grad, -advantages / 6, rtol=1e-6, atol=0)


def test_a_zero_advantage_teaches_nothing():
    log_ratio = torch.tensor([0.0, 3.0, -3.0], requires_grad=True)
    output = clipped_surrogate_loss(log_ratio, torch.zeros(3), CLIP)
    output.loss.backward()
    assert output.loss.item() == 0
    assert log_ratio.grad.tolist() == [0, 0, 0]


def test_metrics_by_hand():
    """Ratios 1.1, 0.5, 1 and 2, of which two leave [0.8, 1.2]; k3 is ratio - 1 - log ratio."""
    log_ratio = torch.tensor([1.1, 0.5, 1.0, 2.0]).log().requires_grad_()
    metrics = clipped_surrogate_loss(log_ratio, torch.tensor([1.0, -1.0, 2.0, 0.0]), CLIP).metrics
    assert set(metrics) == {"approx_kl", "clipfrac", "ratio"}
    assert metrics["ratio"].item() == pytest.approx(4.6 / 4)
    assert metrics["clipfrac"].item() == 0.5
    k3 = [0.1 - math.log(1.1), -0.5 - math.log(0.5), 0.0, 1 - math.log(2)]
    assert metrics["approx_kl"].item() == pytest.approx(sum(k3) / 4, rel=1e-6)
    assert not any(value.requires_grad for value in metrics.values())


def test_approx_kl_keeps_its_digits_in_a_clip_range_of_1e4():
    """k3 is log_ratio^2 / 2 there: 5e-9, which exp(log_ratio) - 1 in float32 would drown in rounding."""
    metrics = clipped_surrogate_loss(torch.full((4,), 1e-4), torch.ones(4), 1e-4).metrics
    assert metrics["approx_kl"].item() == pytest.approx(5e-9, rel=0.01)


def two_images_and_two_steps(loss):
    """
    The policy predicts a * latents. Its parameter was a = 0.5 when it sampled, and is 0.6 now; output_coef is 1, std 0.5.
    All latents are 1, so each shift is 0.1 / 0.5 = 0.2, and log ratio = z * 0.2 - 0.02, d log ratio / da = (z - 0.2) / 0.5.
    Image 0 has advantage 2, and z = 0.6 and 2; image 1 has advantage -1, and z = -1 and -1.5.
    """
    columns = torch.ones(2, dtype=torch.float64)
    table = TransitionTable(latents_coef=0 * columns, output_coef=columns, std=0.5 * columns)
    z, steps = torch.tensor([[0.6], [2.0], [-1.0], [-1.5]]), torch.tensor([0, 1, 0, 1])
    latents, old_output = torch.ones(4, 1), torch.full((4, 1), 0.5)
    parameter = torch.tensor(0.6, requires_grad=True)
    terms = ratio_terms(table, steps, latents, parameter * latents, old_output, old_output + 0.5 * z)
    output = loss(terms.log_ratio, torch.tensor([2.0, 2.0, -1.0, -1.0]))
    output.loss.backward()
    assert terms.log_ratio.tolist() == pytest.approx([0.1, 0.38, -0.22, -0.32], abs=1e-6)
    return output, parameter.grad.item()


def test_importance_sampling_by_hand():
    """
    Image 0: step 0 has ratio e^0.1, inside [0.8, 1.2], gradient -2 * e^0.1 * 0.8. Its step 1 is clipped: loss -2 * 1.2.
    Image 1: step 0 has ratio 0.803, just inside, gradient e^-0.22 * (-1.2 / 0.5). Its step 1 is clipped: loss 0.8.
    """
    output, gradient = two_images_and_two_steps(partial(clipped_surrogate_loss, clip_range=CLIP))
    losses = [-2 * math.exp(0.1), -2 * 1.2, math.exp(-0.22), 0.8]
    assert output.loss.item() == pytest.approx(sum(losses) / 4, rel=1e-5)
    gradients = [-2 * math.exp(0.1) * 0.4 / 0.5, 0.0, math.exp(-0.22) * -1.2 / 0.5, 0.0]
    assert gradient == pytest.approx(sum(gradients) / 4, rel=1e-5)
    assert output.metrics["clipfrac"].item() == 0.5


def test_score_function_by_hand():
    """
    Nothing is clipped. -A * log ratio: -0.2, -0.76, -0.22, -0.32. -A * (z - 0.2) / 0.5: -1.6, -7.2, -2.4, -3.4.
    """
    output, gradient = two_images_and_two_steps(score_function_loss)
    assert output.loss.item() == pytest.approx(-1.5 / 4, rel=1e-5)
    assert gradient == pytest.approx(-14.6 / 4, rel=1e-5)
    assert set(output.metrics) == {"approx_kl", "ratio"}
    assert output.metrics["ratio"].item() == pytest.approx(sum(map(math.exp, (0.1, 0.38, -0.22, -0.32))) / 4)
    assert not any(value.requires_grad for value in output.metrics.values())


def test_score_function_has_the_gradient_of_reinforce_whatever_the_ratio():
    log_ratio, advantages = torch.randn(6, requires_grad=True), torch.randn(6)
    score_function_loss(log_ratio, advantages).loss.backward()
    torch.testing.assert_close(log_ratio.grad, -advantages / 6, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("weigh", "weights"),
    [
        pytest.param(partial(softmax_weights, beta=0.2), [2 / (1 + math.e), 2 * math.e / (1 + math.e)], id="rwr"),
        pytest.param(partial(quantile_weights, quantile=0.9), [0, 1], id="sparse rwr"),
    ],
)
def test_regression_by_hand(weigh, weights):
    """
    The model predicts a * latents, a = 0.5. Final latents are 1 and 2, rewards 10 and 15: softmax(0.2 * r) is 1 : e.
    Step 0 is 0.8 * final + 0.6 * noise, step 1 is 0.6 * final + 0.8 * noise; the noise is the target.

    Image 0 with noise 1, -1: latents 1.4, -0.2; errors -0.3, 0.9; squares 0.09, 0.81; their gradients -0.84, -0.36.
    Image 1 with noise -1, 0.5: latents 1, 1.6; errors 1.5, 0.3; squares 2.25, 0.09; their gradients 3, 0.96.
    """
    signal, noise = torch.tensor([0.8, 0.6]).double(), torch.tensor([0.6, 0.8]).double()
    table = NoisingTable(signal, noise, target_denoised=0 * signal, target_noise=1 + 0 * signal)
    per_image = RegressionWeighting(weigh, per_prompt=False).update(
        ["a", "b"], np.array([[10.0], [15.0]]), np.array([10.0, 15.0])
    )
    assert per_image.values.tolist() == pytest.approx(weights)
    denoised, epsilon = torch.tensor([[1.0], [1.0], [2.0], [2.0]]), torch.tensor([[1.0], [-1.0], [-1.0], [0.5]])
    steps, parameter = torch.tensor([0, 1, 0, 1]), torch.tensor(0.5, requires_grad=True)
    latents = table.noised(steps, denoised, epsilon)
    assert latents.flatten().tolist() == pytest.approx([1.4, -0.2, 1, 1.6])
    rows = torch.tensor([0, 0, 1, 1])
    target = table.target(steps, denoised, epsilon)
    output = weighted_denoising_loss(parameter * latents, target, torch.from_numpy(per_image.values).float()[rows])
    output.loss.backward()
    assert output.loss.item() == pytest.approx((weights[0] * 0.9 + weights[1] * 2.34) / 4, rel=1e-5)
    assert parameter.grad.item() == pytest.approx((weights[0] * -1.2 + weights[1] * 3.96) / 4, rel=1e-5)
    assert output.metrics["denoising_loss"].item() == pytest.approx(3.24 / 4, rel=1e-5)
    assert not output.metrics["denoising_loss"].requires_grad


def test_the_denoising_loss_is_a_mean_over_elements():
    """Errors 1 and 3, mean square 5, weight 2; the gradient of each element is 2 * 2 * error / 2, over one image."""
    prediction = torch.tensor([[[1.0, 3.0]]], requires_grad=True)
    output = weighted_denoising_loss(prediction, torch.zeros(1, 1, 2), torch.tensor([2.0]))
    output.loss.backward()
    assert output.loss.item() == 10
    assert prediction.grad.tolist() == [[[2, 6]]]


def test_kl_to_the_reference_by_hand():
    """
    The policy predicts a * latents, a = 0.6; its reference 0.3 * latents. Shifts are coef * 0.3 * latents / std.

    Step 0 with coef 1, std 0.5 and latents 1, 2: shifts 0.6, 1.2; KL (0.18 + 0.72) / 2; gradient (0.6 * 2 + 1.2 * 4) / 2.
    Step 1 with coef -2, std 1 and latents 3, 0: shifts -1.8, 0; KL 1.62 / 2; gradient (-1.8 * -6) / 2.
    """
    table = TransitionTable(*torch.tensor([[9.0, 9.0], [1.0, -2.0], [0.5, 1.0]]).double())
    latents, parameter = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor(0.6, requires_grad=True)
    kl = kl_divergence(table, torch.tensor([0, 1]), parameter * latents, 0.3 * latents)
    assert kl.tolist() == pytest.approx([0.45, 0.81], rel=1e-5)
    kl.mean().backward()
    assert parameter.grad.item() == pytest.approx((3 + 5.4) / 2, rel=1e-5)


def test_kl_is_that_of_torch():
    table = TransitionTable(*torch.rand(3, 5).double())
    steps = torch.tensor([4, 0, 2])
    output, reference = torch.randn(2, 3, 4, 2, 2)
    scale = (table.output_coef[steps].float().reshape(3, 1, 1, 1), table.std[steps].float().reshape(3, 1, 1, 1))
    policy, other = (torch.distributions.Normal(scale[0] * mean, scale[1]) for mean in (output, reference))
    expected = torch.distributions.kl_divergence(policy, other).mean((1, 2, 3))
    torch.testing.assert_close(kl_divergence(table, steps, output, reference), expected)
