"""The samplers of flow matching: against their papers, against diffusers, and against the process that they must preserve."""

import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from support import zoo
from support.trainers import logs_of

from trainer_ext.errors import ConfigError, PipelineError
from trainer_ext.model.loading import load_pipeline
from trainer_ext.policy.recording.scheduler import log_prob_scheduler
from trainer_ext.policy.transitions.flow import (
    cps_table,
    dance_sde_table,
    flow_noising,
    flow_sde_table,
    ode_table,
    precise_table,
    windowed,
)
from trainer_ext.policy.transitions.gaussian import ratio_terms
from trainer_ext.policy.transitions.samplers import FLOW_TABLES, SAMPLERS, SamplerOptions, choose_sampler
from trainer_ext.policy.transitions.stand_in import stock_scheduler
from trainer_ext.runs.pictures.sheets import load_images


def falling(num_steps, shift=3.0):
    sigmas = torch.linspace(1, 1 / num_steps, num_steps, dtype=torch.float64)
    return torch.cat([shift * sigmas / (1 + (shift - 1) * sigmas), torch.zeros(1, dtype=torch.float64)])


# What the papers write, restated: the mean and the std of one step from sigma s to s + dt, dt < 0.


def flow_grpo(x, v, s, dt, a, first_next):
    """Eq. 9 with eq. 8's noise."""
    noise = a * math.sqrt(s / (1 - (first_next if s == 1 else s)))
    return x + (v + noise**2 / (2 * s) * (x + (1 - s) * v)) * dt, noise * math.sqrt(-dt)


def dance_grpo(x, v, s, dt, a, first_next):
    """Eq. 8, with the score of the predicted image."""
    denoised = x - s * v
    score = -(x - (1 - s) * denoised) / s**2
    return x + (v - a**2 / 2 * score) * dt, a * math.sqrt(-dt)


def coefficients_preserving(x, v, s, dt, a, first_next):
    denoised, noise, after = x - s * v, x + (1 - s) * v, s + dt
    std = after * math.sin(a * math.pi / 2)
    return (1 - after) * denoised + math.sqrt(after**2 - std**2) * noise, std


def precise(x, v, s, dt, a, first_next):
    """Of the noise there is, what is kept and what is drawn again; the share that is kept is a power of the step's own ratio."""
    denoised, noise, after = x - s * v, x + (1 - s) * v, s + dt
    ratio = after / (1 - after) / (s / (1 - s)) if s < 1 else 0.0
    return (1 - after) * denoised + after * ratio ** (a**2 / 2) * noise, after * math.sqrt(1 - ratio ** (a**2))


PAPERS = {"flow_sde": flow_grpo, "dance_sde": dance_grpo, "cps": coefficients_preserving, "precise": precise}


@pytest.mark.parametrize("noise_level", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("name", FLOW_TABLES)
def test_every_step_is_the_papers(name, noise_level):
    x, v = torch.randn(2, 3, 4, dtype=torch.float64)
    for num_steps in (1, 4, 28):
        sigmas = falling(num_steps)
        table = FLOW_TABLES[name](sigmas, noise_level)
        for step in range(num_steps):
            s, dt = sigmas[step].item(), (sigmas[step + 1] - sigmas[step]).item()
            mean, std = PAPERS[name](x, v, s, dt, noise_level, sigmas[1].item())
            ours = table.latents_coef[step] * x + table.output_coef[step] * v
            torch.testing.assert_close(ours, mean, rtol=1e-12, atol=1e-12)
            assert table.std[step].item() == pytest.approx(std, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    "options",
    [{}, {"shift": 3.0}, {"use_dynamic_shifting": True}, {"use_dynamic_shifting": True, "shift_terminal": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("stochastic", [False, True])
def test_every_step_is_the_step_of_diffusers(options, stochastic):
    """Without noise its step is Euler's; with `stochastic_sampling` it is CPS at noise level 1."""
    scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=stochastic, **options)
    scheduler.set_timesteps(9, **({"mu": 0.8} if "use_dynamic_shifting" in options else {}))
    sigmas = scheduler.sigmas.double()
    table = cps_table(sigmas, 1.0) if stochastic else ode_table(sigmas)
    latents, model_output = torch.randn(2, 1, 4, 3, 3)
    for step, timestep in enumerate(scheduler.timesteps):
        torch.manual_seed(5)  # the global generator: diffusers 0.35 does not look at another
        expected = scheduler.step(model_output, timestep, latents, return_dict=False)[0]
        torch.manual_seed(5)
        noise = torch.randn(latents.shape)
        ours = table.latents_coef[step] * latents + table.output_coef[step] * model_output + table.std[step] * noise
        torch.testing.assert_close(ours.float(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["flow_sde", "dance_sde", "precise"])
def test_noise_keeps_the_distribution(name):
    """
    Images N(0, 0.25): latents N(0, var) with var = (1 - s)^2 / 4 + s^2, for which v = (s - (1 - s) / 4) / var * latents is
    exact. A sampler whose drift does not match its noise ends with another variance, however small its steps.
    """
    sigmas = torch.linspace(0.98, 0.02, 4001, dtype=torch.float64)
    marginal = (1 - sigmas) ** 2 / 4 + sigmas**2
    velocity = (sigmas - (1 - sigmas) / 4) / marginal
    table = FLOW_TABLES[name](sigmas, 0.7)
    variance = marginal[0]
    for step in range(table.num_steps):
        gain = table.latents_coef[step] + table.output_coef[step] * velocity[step]
        variance = gain**2 * variance + table.std[step] ** 2
    assert variance.item() == pytest.approx(marginal[-1].item(), rel=0.01)


@pytest.mark.parametrize(("name", "level"), [("cps", 0.7), ("precise", 1.5)])
def test_they_keep_the_coefficients(name, level):
    """
    Of an image that is predicted rightly, and of its noise: the next latents hold what diffusers' forward process puts in.

    Parts of the image and the noise in `latents` are 1 - s and s, in v they are -1 and 1.
    """
    sigmas = falling(8)
    table, noising = FLOW_TABLES[name](sigmas, level), flow_noising(sigmas)
    image = table.latents_coef * noising.signal + table.output_coef * noising.target_denoised
    noise = table.latents_coef * noising.noise + table.output_coef * noising.target_noise
    torch.testing.assert_close(image, 1 - sigmas[1:])
    torch.testing.assert_close((noise**2 + table.std**2).sqrt(), sigmas[1:], rtol=1e-14, atol=1e-16)


def test_tables_by_hand():
    """
    Two steps, 1 -> 0.5 -> 0, noise level 0.5.
    Flow-SDE at 1: variance = 0.25 * 1 / (1 - 0.5) = 0.5; 1 - 0.5 * 0.5 / 2 = 0.875; -0.5; sqrt(0.25) = 0.5.
    At 0.5: variance = 0.25; 1 - 0.25 * 0.5 / 1 = 0.875; (1 + 0.25 * 0.5 / 1) * -0.5 = -0.5625; sqrt(0.125).
    Dance-SDE at 1: drift = 0.25 * -0.5 / 2 = -0.0625; 0.9375; -0.5; 0.5 sqrt(0.5). At 0.5: drift = -0.125; 0.875; -0.5625.
    CPS, sin = cos = sqrt(1/2), at 1: kept = 0.35355; 1 - 0.5 + kept; -0.5 * 1; std = kept. At 0.5: 1, -0.5, 0.
    Precise draws all noise again at 1, where no image is left: 0.5, -0.5, 0.5. At 0.5: 1, -0.5, 0.
    """
    sigmas = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    root = math.sqrt(0.5)
    expected = {
        flow_sde_table: [(0.875, 0.875), (-0.5, -0.5625), (0.5, math.sqrt(0.125))],
        dance_sde_table: [(0.9375, 0.875), (-0.5, -0.5625), (0.5 * root, 0.5 * root)],
        cps_table: [(0.5 + 0.5 * root, 1.0), (-0.5, -0.5), (0.5 * root, 0.0)],
        precise_table: [(0.5, 1.0), (-0.5, -0.5), (0.5, 0.0)],
    }
    for tabulate, (latents_coef, output_coef, std) in expected.items():
        table = tabulate(sigmas, 0.5)
        assert table.latents_coef.tolist() == pytest.approx(latents_coef)
        assert table.output_coef.tolist() == pytest.approx(output_coef)
        assert table.std.tolist() == pytest.approx(std)


def test_a_window_of_noise():
    sigmas = falling(6)
    noisy, still = flow_sde_table(sigmas, 0.7), ode_table(sigmas)
    table = windowed(noisy, sigmas, 1, 3)
    assert table.stochastic_steps.tolist() == [1, 2, 3]
    for step in range(6):
        expected = noisy if 1 <= step <= 3 else still
        for name in ("latents_coef", "output_coef", "std"):
            assert getattr(table, name)[step] == getattr(expected, name)[step]


def test_a_first_sigma_that_rounds_below_one_is_one():
    rounded = falling(4)
    rounded[0] = 1 - 2**-24
    torch.testing.assert_close(flow_sde_table(rounded, 0.7).std, flow_sde_table(falling(4), 0.7).std, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", FLOW_TABLES)
def test_equal_predictions_give_exactly_zero(name):
    table = FLOW_TABLES[name](falling(8), 0.7)
    steps = table.stochastic_steps
    latents, output, next_latents = torch.randn(3, len(steps), 4, 6, 6)
    terms = ratio_terms(table, steps, latents, output, output.clone(), next_latents)
    assert terms.log_ratio.tolist() == terms.kl.tolist() == [0] * len(steps)


def test_noising_is_that_of_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(5)
    table = flow_noising(scheduler.sigmas.double())
    denoised, epsilon = torch.randn(2, 5, 4, 2, 2)
    steps = torch.arange(5)
    expected = scheduler.scale_noise(denoised, scheduler.timesteps, epsilon)
    torch.testing.assert_close(table.noised(steps, denoised, epsilon), expected)
    target = table.target(steps, denoised, epsilon)
    torch.testing.assert_close(target, epsilon - denoised)
    # the right output takes the noised latents back to the image in one step
    sigma = scheduler.sigmas[:-1].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(expected - sigma * target, denoised)


# The choice


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (DDIMScheduler(), "ddim"),
        (FlowMatchEulerDiscreteScheduler(), "flow_sde"),
        (FlowMatchHeunDiscreteScheduler(shift=2.0), "flow_sde"),
        (DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True), "flow_sde"),
        (UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0), "flow_sde"),
        (UniPCMultistepScheduler(), "ddim"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_scheduler_decides(scheduler, expected):
    assert choose_sampler(scheduler, SamplerOptions()).name == expected


@pytest.mark.parametrize("name", FLOW_TABLES)
def test_the_user_decides_among_the_flow_samplers(name):
    sampler = choose_sampler(FlowMatchEulerDiscreteScheduler(), SamplerOptions(name, noise_level=0.4))
    sampler.scheduler.set_timesteps(4)
    expected = FLOW_TABLES[name](sampler.scheduler.sigmas.double(), 0.4)
    assert torch.equal(sampler.transitions(sampler.scheduler).output_coef, expected.output_coef)
    assert name in SAMPLERS


def test_the_shift_is_taken_over():
    assert stock_scheduler(FlowMatchEulerDiscreteScheduler(shift=3.0)).shift == 3.0
    assert stock_scheduler(FlowMatchHeunDiscreteScheduler(shift=2.0)).config.shift == 2.0
    for solver in (DPMSolverMultistepScheduler, UniPCMultistepScheduler):
        scheduler = solver(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
        assert stock_scheduler(scheduler).shift == 5.0
    assert (
        stock_scheduler(FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)).config.stochastic_sampling is False
    )


def test_dynamic_shift_and_window_reach_the_table():
    """As a pipeline does it: mu belongs to the image's size and is known only when it sets the timesteps."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    tables = []
    sampler = choose_sampler(scheduler, SamplerOptions("cps", noise_level=0.5, sde_window=[0, 1]))
    ours = log_prob_scheduler(sampler, None, lambda *both: tables.append(both), lambda transition: None)
    ours.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=1.1)
    latents = torch.randn(1, 4, 4)
    for timestep in ours.timesteps:
        (latents,) = ours.step(torch.randn(1, 4, 4), timestep, latents, return_dict=False)
    ((table, noising),) = tables
    shifted = [math.exp(1.1) / (math.exp(1.1) + 1 / sigma - 1) for sigma in (1.0, 0.75, 0.5, 0.25)]
    assert noising.noise.tolist() == pytest.approx(shifted, rel=1e-6)
    assert table.stochastic_steps.tolist() == [0, 1]
    assert table.std[1].item() == pytest.approx(shifted[2] * math.sin(math.pi / 4), rel=1e-6)


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        (DDIMScheduler, {"sampler": "cps"}, "a DDIMScheduler, is sampled by DDIM: leave sampler and sde_window out"),
        (DDIMScheduler, {"sde_window": [0, 1]}, "windows are for flow matching"),
        (
            FlowMatchEulerDiscreteScheduler,
            {"sampler": "ddim"},
            "sampler is 'ddim'; use one of flow_sde, dance_sde, cps",
        ),
    ],
)
def test_options_of_the_other_family_are_refused(scheduler, options, message):
    with pytest.raises(ConfigError, match=message):
        choose_sampler(scheduler(), SamplerOptions(**options))


def test_inverted_sigmas_are_refused():
    with pytest.raises(PipelineError, match="invert_sigmas=True"):
        stock_scheduler(FlowMatchEulerDiscreteScheduler(invert_sigmas=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "sde"}, "sampler is 'sde'; it must be one of ddim, flow_sde, dance_sde, cps"),
        ({"noise_level": 0.0}, "noise_level is 0.0; it must be greater than 0"),
        ({"noise_level": math.nan}, "noise_level is nan"),
        ({"sampler": "cps", "noise_level": 1.5}, "for 'cps' at most 1"),
    ],
)
def test_sampling_without_a_policy_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SamplerOptions(**options)


@pytest.mark.parametrize("window", [[], [1], [2, 1], [-1, 2], [0, 10], [0, 1, 2]])
def test_windows_that_are_none(window):
    with pytest.raises(ConfigError, match=r"two steps, the first and the last with noise, from 0 to .* = 9"):
        SamplerOptions(sde_window=window).check_window(10)


# In the trainer


@pytest.mark.parametrize("algorithm", ["ddpo_is", "rwr"])
def test_options_reach_the_steps_that_are_trained(algorithm, make_trainer):
    trainer = make_trainer(
        model=load_pipeline(zoo.stable_diffusion_3()),
        algorithm=algorithm,
        sampler="cps",
        noise_level=0.5,
        sde_window=[1, 2],
        num_inference_steps=4,
        guidance_scale=7.0,
        num_images_per_prompt=2,
        num_sample_images=2,
    )
    table = trainer.policy.table
    assert trainer.policy.runner.sampler.name == "cps"
    assert table.std[1].item() == pytest.approx(trainer.policy.noising.noise[2].item() * math.sin(math.pi / 4))
    assert table.stochastic_steps.tolist() == [1, 2]
    assert trainer.algorithm.trained_steps.tolist() == ([1, 2] if algorithm == "ddpo_is" else [0, 1, 2, 3])
    trainer.train()
    assert len(logs_of(trainer, "loss")) == 1
    drawn = load_images(trainer.args.folder / "samples" / "update-00000")
    assert drawn.float().std() > 1
