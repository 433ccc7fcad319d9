"""The pipeline's own scheduler, for algorithms that need no log-probability."""

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from support.zoo_questions import PROMPTS, SEEDS

from trainer_ext.errors import ConfigError, PipelineError
from trainer_ext.policy.deviations import Replayed
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.recording.scheduler import solver_scheduler
from trainer_ext.policy.seeds import image_generators
from trainer_ext.policy.stock import default_images, stock_images
from trainer_ext.policy.transitions.own import own_noising, own_scheduler
from trainer_ext.policy.transitions.samplers import SamplerOptions, choose_sampler

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"  # of diffusers' own schedulers
)

DIFFUSION = {
    "DDIMScheduler": {},
    "DDPMScheduler": {},
    "PNDMScheduler": {"skip_prk_steps": True},
    "EulerDiscreteScheduler": {},
    "EulerDiscreteScheduler, Karras": {"use_karras_sigmas": True},
    "EulerAncestralDiscreteScheduler": {},
    "HeunDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "UniPCMultistepScheduler": {},
    "LCMScheduler": {},
    "TCDScheduler": {},
}
FLOW = {
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0},
    "FlowMatchHeunDiscreteScheduler": {"shift": 3.0},
    "FlowMatchLCMScheduler": {"shift": 3.0},
    "UniPCMultistepScheduler, flow": {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
}


def scheduler_of(name, **more):
    return getattr(diffusers, name.split(",")[0])(**({**DIFFUSION, **FLOW}[name] | more))


@pytest.mark.parametrize("name", [*DIFFUSION, *FLOW])
def test_noise_levels_are_those_of_the_scheduler(name):
    """Against the scheduler's own `add_noise` or `scale_noise`, and its own scaling of what the denoiser gets."""
    scheduler = scheduler_of(name)
    scheduler.set_timesteps(5)
    table = own_noising(scheduler)
    assert len(table.signal) == len(scheduler.timesteps)
    final, epsilon = torch.randn(2, 1, 4, 8, 8)
    for step, timestep in enumerate(scheduler.timesteps):
        fresh = scheduler_of(name)
        fresh.set_timesteps(5)
        if name.startswith("FlowMatch"):
            fresh._step_index = step
            expected = fresh.scale_noise(final, timestep[None], epsilon)
        else:
            expected = fresh.add_noise(final, epsilon, timestep[None])
            if (hasattr(fresh, "sigmas") and "Euler" in name) or "Heun" in name:
                expected = fresh.scale_model_input(expected, timestep)
        torch.testing.assert_close(
            table.noised(torch.tensor([step]), final, epsilon), expected, rtol=2e-3, atol=2e-3, msg=f"{step} {timestep}"
        )


@pytest.mark.parametrize("name", DIFFUSION)
def test_images_are_those_of_the_pipeline_as_it_came(tiny_pipeline, name):
    """Bit for bit, with the noise of the images' own generators; and the first step is replayed exactly."""
    pipeline = tiny_pipeline("epsilon")
    pipeline.scheduler = scheduler_of(name, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    given = pipeline.scheduler
    policy = LogProbPipeline(pipeline, 4, 3.0, sampler="own")
    sampled = policy.sample(PROMPTS, image_generators(SEEDS[:2]))
    assert pipeline.scheduler is given
    arguments = (PROMPTS, SEEDS[:2], 2, policy.sampling_kwargs)
    expected = default_images(pipeline, *arguments)
    assert torch.equal(sampled.images, expected)
    assert torch.equal(stock_images(pipeline, *arguments, sampler="own"), expected)
    assert not len(sampled.trajectory.table.stochastic_steps)
    for step in range(policy.table.num_steps):
        replayed = Replayed.at_step(sampled.trajectory, torch.tensor(step))
        assert replayed.deviations(policy, pipeline.unet).tolist() == [0, 0]


def test_a_solver_draws_from_the_generators_of_its_images():
    """Also where the pipeline passes none on, as pipelines of flow matching do."""
    sampler = choose_sampler(scheduler_of("FlowMatchLCMScheduler"), SamplerOptions("own"))
    ends = []
    for seeds in ([1, 2], [1, 2], [3, 2]):
        scheduler = solver_scheduler(sampler, image_generators(seeds), lambda *tables: None, lambda transition: None)
        scheduler.set_timesteps(3)
        latents = torch.ones(2, 4, 8, 8)
        for timestep in scheduler.timesteps:
            latents = scheduler.step(0.5 * latents, timestep, latents, return_dict=False)[0]
        ends.append(latents)
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0][1], ends[2][1])
    assert not torch.equal(ends[0][0], ends[2][0])


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
def test_the_policy_gradient_refuses_what_they_take(tiny_pipeline, name):
    pipeline = tiny_pipeline()
    pipeline.scheduler = scheduler_of(name)
    with pytest.raises(PipelineError, match=f"is a {name}.*'awm' and 'nft' take a pipeline's own scheduler"):
        LogProbPipeline(pipeline, 4)


def test_schedulers_of_unknown_noise():
    with pytest.raises(PipelineError, match="is a EDMEulerScheduler, whose noise levels are not known"):
        own_scheduler(diffusers.EDMEulerScheduler())


def test_noise_alone_says_nothing_to_a_prediction_of_noise():
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    scheduler.set_timesteps(4)
    with pytest.raises(PipelineError, match="begins from noise alone"):
        own_noising(scheduler)


def test_windows_are_for_others():
    with pytest.raises(ConfigError, match=r"sampler is 'own'.*sde_window is \[0, 1\]"):
        choose_sampler(FlowMatchEulerDiscreteScheduler(), SamplerOptions("own", sde_window=[0, 1]))
