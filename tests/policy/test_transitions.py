import itertools
import math

import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from torch.distributions import Normal, kl_divergence

from trainer_ext.errors import ConfigError, PipelineError
from trainer_ext.policy.recording.scheduler import log_prob_scheduler
from trainer_ext.policy.transitions.ddim import ddim_table
from trainer_ext.policy.transitions.gaussian import TransitionTable, log_prob, ratio_terms
from trainer_ext.policy.transitions.samplers import SamplerOptions, choose_sampler
from trainer_ext.policy.transitions.stand_in import stock_scheduler

PREDICTION_TYPES = ["epsilon", "v_prediction", "sample"]
SPACINGS = ["leading", "trailing", "linspace"]


def in_float64(scheduler, num_inference_steps):
    """Diffusers computes in the dtype of these two tables."""
    scheduler.set_timesteps(num_inference_steps)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    return scheduler


def toy_table(std=(0.8, 0.5)):
    return TransitionTable(
        latents_coef=torch.tensor([0.9, 1.1], dtype=torch.float64),
        output_coef=torch.tensor([-0.4, 2.0], dtype=torch.float64),
        std=torch.tensor(std, dtype=torch.float64),
    )


@pytest.fixture
def table():
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(10)
    return ddim_table(scheduler, 1.0)


def transitions(num_steps, dtype=torch.float32):
    """One transition for each step, the new prediction close to the old one."""
    latents, old_output, noise, change = torch.randn(4, num_steps, 4, 6, 5)
    old_output = old_output.to(dtype)
    return torch.arange(num_steps), latents, (old_output + 0.05 * change.to(dtype)), old_output, noise


# Oracles


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps_offset", [0, 1])
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_every_step_is_the_step_of_diffusers(prediction_type, spacing, steps_offset, set_alpha_to_one):
    latents, model_output, noise = torch.randn(3, 1, 4, 3, 3, dtype=torch.float64)
    for num_inference_steps, eta in itertools.product([1, 7, 20, 50], [0.0, 0.5, 1.0]):
        scheduler = DDIMScheduler(
            prediction_type=prediction_type,
            timestep_spacing=spacing,
            steps_offset=steps_offset,
            set_alpha_to_one=set_alpha_to_one,
            clip_sample=False,
        )
        table = ddim_table(in_float64(scheduler, num_inference_steps), eta)
        assert table.num_steps == len(scheduler.timesteps)
        for step, timestep in enumerate(scheduler.timesteps):
            expected = scheduler.step(model_output, int(timestep), latents, eta=eta, variance_noise=noise).prev_sample
            ours = table.latents_coef[step] * latents + table.output_coef[step] * model_output + table.std[step] * noise
            # Where the noise level of diffusers is a difference of nearly equal numbers, float64 keeps 1e-8.
            torch.testing.assert_close(
                ours, expected, rtol=1e-9, atol=1e-7, msg=lambda m: f"{num_inference_steps=} {eta=} {step=} {m}"
            )


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_mean_of_mixed_steps_is_the_mean_of_diffusers(prediction_type):
    scheduler = DDIMScheduler(
        prediction_type=prediction_type, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    in_float64(scheduler, 10)
    steps = torch.tensor([7, 0, 9, 3])
    latents, model_output = torch.randn(2, 4, 4, 6, 6)
    mean = ddim_table(scheduler, 1.0).mean(steps, latents, model_output)
    assert mean.dtype == torch.float32
    for row, step in enumerate(steps):
        state, output = latents[row].double(), model_output[row].double()
        timestep, no_noise = int(scheduler.timesteps[step]), torch.zeros_like(state)
        expected = scheduler.step(output, timestep, state, eta=1.0, variance_noise=no_noise).prev_sample
        torch.testing.assert_close(mean[row].double(), expected, rtol=1e-6, atol=1e-5)


def test_log_prob_is_that_of_torch_distributions(table):
    steps, latents, model_output, _, noise = transitions(10)
    std = table.std.float().reshape(-1, 1, 1, 1)
    mean = table.mean(steps, latents, model_output)
    next_latents = mean + std * noise
    expected = Normal(mean, std.expand_as(mean)).log_prob(next_latents).flatten(1).mean(1)
    torch.testing.assert_close(log_prob(table, steps, latents, model_output, next_latents), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ratio_terms_are_those_of_torch_distributions_in_float64(table, dtype):
    steps, latents, output, old_output, noise = transitions(10, dtype)

    def gaussian(model_output):
        coefs = (table.latents_coef, table.output_coef, table.std)
        latents_coef, output_coef, std = (coef.reshape(-1, 1, 1, 1) for coef in coefs)
        mean = latents_coef * latents.double() + output_coef * model_output.double()
        return Normal(mean, std.expand_as(mean))

    new, old = gaussian(output), gaussian(old_output)
    next_latents = (old.mean + old.stddev * noise).float()
    terms = ratio_terms(table, steps, latents, output, old_output, next_latents)
    expected = (new.log_prob(next_latents.double()) - old.log_prob(next_latents.double())).flatten(1).mean(1)
    torch.testing.assert_close(terms.log_ratio.double(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(terms.kl.double(), kl_divergence(new, old).flatten(1).mean(1), rtol=1e-5, atol=0)


# By hand


def test_log_ratio_and_its_gradient_by_hand():
    """
    Image 0 at step 1: std 0.5, output_coef 2, old mean 1.1 * 1 + 2 * 0.1 = 1.3; z = (1.55 - 1.3) / 0.5 = 0.5.
    The new output is 0.15: shift = 2 * 0.05 / 0.5 = 0.2; log ratio = 0.5 * 0.2 - 0.02 = 0.08.
    d log ratio / d output = (z - shift) * output_coef / std = 0.3 * 4 = 1.2.
    Image 1 at step 0 has two elements, so that each counts half. std 0.8, output_coef -0.4.
    Element 0: old mean 0.9 * 2 - 0.4 * 1 = 1.4, z = (0.6 - 1.4) / 0.8 = -1, shift = -0.4 * 0.2 / 0.8 = -0.1.
    Element 1: old mean 0.9 * 0 + 0.4 * 1 = 0.4, z = (2.0 - 0.4) / 0.8 = 2, shift = -0.4 * -0.4 / 0.8 = 0.2.
    """
    output = torch.tensor([[0.15]], requires_grad=True)
    first = ratio_terms(
        toy_table(), torch.tensor([1]), torch.tensor([[1.0]]), output, torch.tensor([[0.1]]), torch.tensor([[1.55]])
    )
    first.log_ratio.sum().backward()
    assert first.log_ratio.tolist() == pytest.approx([0.08], abs=1e-6)
    assert first.kl.tolist() == pytest.approx([0.02], abs=1e-6)
    assert output.grad.tolist() == [pytest.approx([1.2], rel=1e-5)]

    output = torch.tensor([[1.2, -1.4]], requires_grad=True)
    second = ratio_terms(
        toy_table(),
        torch.tensor([0]),
        torch.tensor([[2.0, 0.0]]),
        output,
        torch.tensor([[1.0, -1.0]]),
        torch.tensor([[0.6, 2.0]]),
    )
    second.log_ratio.sum().backward()
    assert second.log_ratio.tolist() == pytest.approx([((0.1 - 0.005) + (0.4 - 0.02)) / 2], rel=1e-5)
    assert second.kl.tolist() == pytest.approx([(0.005 + 0.02) / 2], rel=1e-5)
    # (z - shift) * (-0.4 / 0.8) / 2 elements
    assert output.grad.tolist() == [pytest.approx([-0.9 * -0.25, 1.8 * -0.25], rel=1e-5)]


def test_log_prob_by_hand():
    """The mean 0.9 * 2 - 0.4 * 1 = 1.4 is missed by one std of 0.8, in one of two elements; nats per element."""
    value = log_prob(
        toy_table(), torch.tensor([0]), torch.tensor([[2.0, 2.0]]), torch.ones(1, 2), torch.tensor([[2.2, 1.4]])
    )
    assert value.tolist() == pytest.approx([-0.25 - math.log(0.8) - 0.5 * math.log(2 * math.pi)], rel=1e-6)


# Invariants


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("eta", [1e-3, 1.0])
def test_equal_predictions_give_exactly_zero(dtype, eta):
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(10)
    steps, latents, _, output, noise = transitions(10, dtype)
    terms = ratio_terms(ddim_table(scheduler, eta), steps, latents, output, output.clone(), 100 * noise)
    assert terms.log_ratio.tolist() == [0] * 10
    assert terms.kl.tolist() == [0] * 10


def test_a_tiny_change_keeps_its_digits(table):
    """Of a change of 1e-6, the difference of two log-probs in float32 keeps no digit."""
    steps, latents, _, old_output, noise = transitions(10)
    output = old_output + 1e-6
    next_latents = table.mean(steps, latents, old_output) + table.std.float().reshape(-1, 1, 1, 1) * noise
    z = (next_latents.double() - table.mean(steps, latents, old_output).double()) / table.std.reshape(-1, 1, 1, 1)
    shift = (output.double() - old_output.double()) * (table.output_coef / table.std).reshape(-1, 1, 1, 1)
    expected = (z * shift - shift.square() / 2).flatten(1).mean(1)
    terms = ratio_terms(table, steps, latents, output, old_output, next_latents)
    torch.testing.assert_close(terms.log_ratio.double(), expected, rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_the_last_step_can_be_deterministic(set_alpha_to_one):
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=set_alpha_to_one, steps_offset=0)
    scheduler.set_timesteps(5)
    assert ddim_table(scheduler, 1.0).stochastic_steps.tolist() == [0, 1, 2, 3]


def test_a_deterministic_step_has_no_log_prob():
    table, ones = toy_table(std=(0.8, 0.0)), torch.ones(2, 3)
    steps = torch.tensor([0, 1])
    for compute in (
        lambda: log_prob(table, steps, ones, ones, ones),
        lambda: ratio_terms(table, steps, ones, ones, ones, ones),
    ):
        with pytest.raises(ConfigError, match=r"deterministic step \(std 0\).*leave it out"):
            compute()
    assert log_prob(table, torch.tensor([0, 0]), ones, ones, ones).shape == (2,)


def test_zero_terminal_snr_cannot_predict_noise():
    """There x_0 is noise divided by 0. Any other prediction type has a first step."""
    for prediction_type in PREDICTION_TYPES:
        scheduler = DDIMScheduler(
            prediction_type=prediction_type, timestep_spacing="trailing", rescale_betas_zero_snr=True, clip_sample=False
        )
        scheduler.set_timesteps(10)
        assert scheduler.alphas_cumprod[scheduler.timesteps[0]] == 0
        if prediction_type == "epsilon":
            with pytest.raises(PipelineError, match=r"not finite.*zero terminal SNR.*timestep_spacing='leading'"):
                ddim_table(scheduler, 1.0)
        else:
            assert ddim_table(scheduler, 1.0).num_steps == 10


def test_a_prediction_type_that_ddim_does_not_know():
    scheduler = DDIMScheduler(prediction_type="flow_prediction")
    scheduler.set_timesteps(5)
    with pytest.raises(PipelineError, match=r"'flow_prediction'.*'epsilon', 'v_prediction' or 'sample'"):
        ddim_table(scheduler, 1.0)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_without_a_policy_is_refused(eta):
    with pytest.raises(ConfigError, match=rf"eta is {eta}; it must be in \(0, 1\]"):
        SamplerOptions(eta=eta)


# Schedulers


@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param(DDIMScheduler(), id="DDIM whose clip_sample is a default"),
        pytest.param(DDIMScheduler(clip_sample=True, thresholding=True), id="DDIM that asks for clipping"),
        pytest.param(DDPMScheduler(), id="DDPM"),
        pytest.param(PNDMScheduler(), id="PNDM without the key"),
        pytest.param(EulerDiscreteScheduler(), id="Euler without the key"),
        pytest.param(DPMSolverMultistepScheduler(), id="DPM-Solver"),
        pytest.param(UniPCMultistepScheduler(), id="UniPC"),
    ],
)
def test_predictions_are_never_clipped(scheduler):
    """`DDIMScheduler.from_config` clips where the key is missing: then the stored transitions are not the ones taken."""
    config = stock_scheduler(scheduler).config
    assert (config.clip_sample, config.thresholding) == (False, False)
    assert (config.beta_start, config.num_train_timesteps) == (scheduler.config.beta_start, 1000)


def test_the_noise_schedule_is_taken_over():
    options = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
    }
    ours = stock_scheduler(EulerDiscreteScheduler(**options, timestep_spacing="trailing"))
    torch.testing.assert_close(ours.alphas_cumprod, DDIMScheduler(**options).alphas_cumprod, rtol=0, atol=0)
    assert (ours.config.prediction_type, ours.config.timestep_spacing) == ("v_prediction", "trailing")


def test_other_families_are_refused():
    with pytest.raises(
        PipelineError,
        match="CMStochasticIterativeScheduler, whose noise schedule neither DDIM nor flow matching.*set pipeline.scheduler",
    ):
        stock_scheduler(CMStochasticIterativeScheduler())


def test_a_run_of_the_scheduler_is_a_run_of_diffusers():
    """Oracle: `DDIMScheduler.step` with the same generators. State in float32, given back in the pipeline's dtype."""
    stock = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    steps, tables = [], []
    generators = [[torch.Generator().manual_seed(seed) for seed in (3, 4)] for _ in range(2)]
    sampler = choose_sampler(stock, SamplerOptions(eta=0.7))
    ours = log_prob_scheduler(sampler, generators[0], lambda *both: tables.append(both), steps.append)
    assert isinstance(ours, DDIMScheduler)
    stock.set_timesteps(6)
    ours.set_timesteps(6)
    expected = latents = torch.randn(2, 4, 4, 4)
    outputs = torch.randn(6, 2, 4, 4, 4)
    for timestep, output in zip(stock.timesteps, outputs, strict=True):
        expected = stock.step(output, timestep, expected, eta=0.7, generator=generators[1]).prev_sample
        latents = ours.step(output, timestep, latents).prev_sample
        torch.testing.assert_close(latents, expected)
    ((table, noising),) = tables
    assert noising.signal.square().tolist() == pytest.approx(stock.alphas_cumprod[stock.timesteps].tolist())
    assert [transition.step for transition in steps] == list(range(6))
    for earlier, later in itertools.pairwise(steps):
        assert torch.equal(earlier.next_latents, later.latents)
    assert table.num_steps == 6
    with pytest.raises(PipelineError, match="more denoising steps than its scheduler has timesteps"):
        ours.step(outputs[0], 1, latents)


def test_only_the_decoder_gets_low_precision():
    dtypes = []
    scheduler = log_prob_scheduler(
        choose_sampler(DDIMScheduler(), SamplerOptions()),
        None,
        lambda *_: None,
        lambda t: dtypes.append((t.latents.dtype, t.next_latents.dtype)),
    )
    scheduler.set_timesteps(3)
    latents, returned = torch.randn(1, 4, 4, 4).bfloat16(), []
    for timestep in scheduler.timesteps:
        (latents,) = scheduler.step(torch.randn(1, 4, 4, 4).bfloat16(), timestep, latents, return_dict=False)
        returned.append(latents.dtype)
    assert dtypes == [(torch.float32, torch.float32)] * 3
    assert returned == [torch.float32, torch.float32, torch.bfloat16]
