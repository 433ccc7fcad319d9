import math

import pytest
import torch

from trainer_ext.losses import clipped_surrogate_loss
from trainer_ext.policy import TransitionTable, ratio_terms

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


def test_two_images_and_two_steps_by_hand():
    """
    The policy predicts a * latents. Its parameter was a = 0.5 when it sampled, and is 0.6 now; output_coef is 1, std 0.5.
    All latents are 1, so each shift is 0.1 / 0.5 = 0.2, and log ratio = z * 0.2 - 0.02, d log ratio / da = (z - 0.2) / 0.5.

    Image 0 has advantage 2. Step 0 with z = 0.6: log ratio 0.1, ratio inside [0.8, 1.2], gradient -2 * e^0.1 * 0.8.
    Its step 1 with z = 2: log ratio 0.38, clipped: loss -2 * 1.2, no gradient.
    Image 1 has advantage -1. Step 0 with z = -1: log ratio -0.22, ratio 0.803 just inside, gradient e^-0.22 * (-1.2 / 0.5).
    Its step 1 with z = -1.5: log ratio -0.32, ratio 0.726, clipped: loss 0.8, no gradient.
    """
    columns = torch.ones(2, dtype=torch.float64)
    table = TransitionTable(latents_coef=0 * columns, output_coef=columns, std=0.5 * columns)
    z, steps = torch.tensor([[0.6], [2.0], [-1.0], [-1.5]]), torch.tensor([0, 1, 0, 1])
    latents, old_output = torch.ones(4, 1), torch.full((4, 1), 0.5)
    parameter = torch.tensor(0.6, requires_grad=True)
    terms = ratio_terms(table, steps, latents, parameter * latents, old_output, old_output + 0.5 * z)
    output = clipped_surrogate_loss(terms.log_ratio, torch.tensor([2.0, 2.0, -1.0, -1.0]), CLIP)
    output.loss.backward()
    assert terms.log_ratio.tolist() == pytest.approx([0.1, 0.38, -0.22, -0.32], abs=1e-6)
    losses = [-2 * math.exp(0.1), -2 * 1.2, math.exp(-0.22), 0.8]
    assert output.loss.item() == pytest.approx(sum(losses) / 4, rel=1e-5)
    gradients = [-2 * math.exp(0.1) * 0.4 / 0.5, 0.0, math.exp(-0.22) * -1.2 / 0.5, 0.0]
    assert parameter.grad.item() == pytest.approx(sum(gradients) / 4, rel=1e-5)
    assert output.metrics["clipfrac"].item() == 0.5
