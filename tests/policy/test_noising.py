"""The forward process against diffusers' own, in float64."""

import pytest
import torch
from diffusers import DDIMScheduler

from trainer_ext.errors import PipelineError
from trainer_ext.policy.transitions.ddim import ddim_table
from trainer_ext.policy.transitions.noising import NoisingTable, ddim_noising

TYPES = ["epsilon", "v_prediction", "sample"]
SCHEDULES = [
    pytest.param(50, {"steps_offset": 1}, id="Stable Diffusion's"),
    pytest.param(7, {"timestep_spacing": "trailing"}, id="trailing"),
    pytest.param(20, {"timestep_spacing": "linspace"}, id="linspace"),
    pytest.param(4, {"steps_offset": 0, "beta_schedule": "squaredcos_cap_v2"}, id="cosine"),
]


def ddim(num_steps, prediction_type, **options):
    scheduler = DDIMScheduler(prediction_type=prediction_type, **{"clip_sample": False, **options})
    scheduler.set_timesteps(num_steps)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()  # so that diffusers computes in float64 throughout
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    return scheduler


def images(num_steps, dtype=torch.float64):
    return torch.randn(2, num_steps, 3, 2, 2, dtype=dtype)


@pytest.mark.parametrize(("num_steps", "options"), SCHEDULES)
@pytest.mark.parametrize("prediction_type", TYPES)
def test_noise_and_targets_are_diffusers(num_steps, options, prediction_type):
    scheduler = ddim(num_steps, prediction_type, **options)
    table, steps = ddim_noising(scheduler), torch.arange(num_steps)
    final, epsilon = images(num_steps)
    expected = scheduler.add_noise(final, epsilon, scheduler.timesteps)
    targets = {
        "epsilon": epsilon,
        "v_prediction": scheduler.get_velocity(final, epsilon, scheduler.timesteps),
        "sample": final,
    }
    shares = [
        share.reshape(-1, 1, 1, 1) for share in (table.signal, table.noise, table.target_denoised, table.target_noise)
    ]
    torch.testing.assert_close(shares[0] * final + shares[1] * epsilon, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        shares[2] * final + shares[3] * epsilon, targets[prediction_type], rtol=1e-12, atol=1e-14
    )
    # the methods, in float32
    noised, target = (method(steps, final.float(), epsilon.float()).double() for method in (table.noised, table.target))
    torch.testing.assert_close(noised, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(target, targets[prediction_type], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("num_steps", "options"), SCHEDULES)
@pytest.mark.parametrize("prediction_type", TYPES)
def test_the_target_is_what_makes_the_denoised_estimate_right(num_steps, options, prediction_type):
    """Noised, and denoised by `DDIMScheduler.step` with the target as prediction: the final latents again."""
    scheduler = ddim(num_steps, prediction_type, **options)
    table = ddim_noising(scheduler)
    final, epsilon = images(num_steps)
    shares = [
        share.reshape(-1, 1, 1, 1) for share in (table.signal, table.noise, table.target_denoised, table.target_noise)
    ]
    noised, target = shares[0] * final + shares[1] * epsilon, shares[2] * final + shares[3] * epsilon
    for step, timestep in enumerate(scheduler.timesteps):
        denoised = scheduler.step(target[step], timestep, noised[step]).pred_original_sample
        torch.testing.assert_close(denoised, final[step], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize(
    "options", [{"steps_offset": 0}, {"timestep_spacing": "trailing"}], ids=["leading", "trailing"]
)
def test_a_sampler_that_predicts_the_targets_walks_back_along_the_noise(prediction_type, options):
    """Two tables made apart, the sampler's and the forward process's: without noise, DDIM stays on the line to the image."""
    scheduler = ddim(10, prediction_type, set_alpha_to_one=True, **options)
    sampler, table = ddim_table(scheduler, eta=0.0), ddim_noising(scheduler)
    final, epsilon = images(1, torch.float32)
    latents = table.noised(torch.tensor([0]), final, epsilon)
    for step in range(10):
        latents = sampler.mean(torch.tensor([step]), latents, table.target(torch.tensor([step]), final, epsilon))
        expected = table.noised(torch.tensor([step + 1]), final, epsilon) if step < 9 else final
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)


def test_steps_may_be_mixed():
    """By hand, with a row for each image."""
    columns = torch.tensor([[0.8, 0.6], [0.6, 0.8], [0.0, 1.0], [1.0, -2.0]]).double()
    table = NoisingTable(*columns)
    final, epsilon = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]), torch.tensor([[1.0, 0.0]] * 3)
    steps = torch.tensor([1, 0, 0])
    expected = torch.tensor([[0.6 + 0.8, 1.2], [2.4 + 0.6, 3.2], [0.8 + 0.6, 1.6]])
    torch.testing.assert_close(table.noised(steps, final, epsilon), expected)
    assert table.target(steps, final, epsilon).tolist() == [[1 - 2, 2], [1, 0], [1, 0]]


def test_prediction_types_without_a_target():
    scheduler = ddim(4, "epsilon")
    scheduler.register_to_config(prediction_type="flow")
    with pytest.raises(PipelineError, match="prediction_type is 'flow'; known: epsilon, v_prediction, sample"):
        ddim_noising(scheduler)
