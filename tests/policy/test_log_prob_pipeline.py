import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from diffusers import (
    CMStochasticIterativeScheduler,
    ConfigMixin,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    ModelMixin,
    PNDMScheduler,
)
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from packaging.version import Version
from peft import get_peft_model
from torch.distributions import Normal

from trainer_ext.errors import ConfigError, GuidanceError, PipelineError
from trainer_ext.images import to_uint8
from trainer_ext.model.lora import default_lora_config
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.recording.conditioning import Conditioning
from trainer_ext.policy.recording.memory import joined as joined_runs
from trainer_ext.policy.seeds import image_generators
from trainer_ext.policy.stock import stock_images

PROMPTS = ["a cat", "a dog riding a bike"]
SEEDS = [11, 12, 13, 14]
GUIDANCE = [
    pytest.param({"guidance_scale": 1.0}, id="unguided"),
    pytest.param({"guidance_scale": 5.0}, id="guided"),
    pytest.param({"guidance_scale": 5.0, "pipeline_kwargs": {"guidance_rescale": 0.7}}, id="rescaled"),
]


def two_each(policy, **kwargs):
    return policy.sample(PROMPTS, image_generators(SEEDS), num_images_per_prompt=2, **kwargs)


def stock_run(pipeline, policy, **kwargs):
    """The pipeline's own call, with diffusers' own scheduler."""
    return pipeline(
        PROMPTS, num_images_per_prompt=2, generator=image_generators(SEEDS), **policy.sampling_kwargs, **kwargs
    ).images


def add_adapter(pipeline):
    """The adapter that is trained. It changes nothing at first, so that some gradients are 0: give it some weight."""
    denoiser = get_peft_model(pipeline.unet, default_lora_config(pipeline.unet))
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return denoiser


class TwoCallDenoiser(ModelMixin, ConfigMixin):
    """A transformer in the manner of Qwen-Image: texts of their own lengths as lists, a timestep for each row."""

    @register_to_config
    def __init__(self, width: int = 4):
        super().__init__()
        self.mix = torch.nn.Linear(width, width)

    def forward(self, hidden_states, timestep, texts, scales=None, return_dict=True):
        text = torch.stack([text.mean() for text in texts])
        hidden = (
            self.mix(hidden_states.movedim(1, -1)).movedim(-1, 1).tanh()
            * (1 + text + timestep / 1000)[:, None, None, None]
        )
        return (hidden * scales.sum(),)


class TwoCallPipeline(DiffusionPipeline):
    """Conditional and unconditional calls one after the other, combined in float32 and negated."""

    def __init__(self, transformer, scheduler):
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        prompt,
        num_inference_steps=10,
        true_cfg_scale=4.0,
        guidance_scale=None,
        num_images_per_prompt=1,
        generator=None,
        output_type="pil",
        return_dict=True,
        skip_guidance_from=None,
        scale_input=1.0,
    ):
        texts = [torch.full((len(text),), len(text) / 20) for text in prompt for _ in range(num_images_per_prompt)]
        latents = randn_tensor((len(texts), 4, 8, 8), generator)
        self.scheduler.set_timesteps(num_inference_steps)
        for step, timestep in enumerate(self.scheduler.timesteps):
            rows, scales = timestep.expand(len(texts)), torch.tensor([0.5, 0.25, 0.25])
            inputs = scale_input * latents
            prediction = self.transformer(inputs, rows, texts, scales=scales, return_dict=False)[0].float()
            if skip_guidance_from is None or step < skip_guidance_from:
                empty = [torch.zeros(1)] * len(texts)
                uncond = self.transformer(inputs, rows, empty, scales=scales, return_dict=False)[0].float()
                prediction = uncond + true_cfg_scale * (prediction - uncond)
            latents = self.scheduler.step(-prediction, timestep, latents, return_dict=False)[0]
        return (latents[:, :3].sigmoid(),)


@pytest.fixture
def two_call_pipeline():
    return TwoCallPipeline(TwoCallDenoiser(), DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1))


# Oracle: the pipeline as it is


@pytest.mark.parametrize("options", GUIDANCE)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_images_are_those_of_the_stock_pipeline(tiny_pipeline, options, prediction_type, eta):
    pipeline = tiny_pipeline(prediction_type)
    policy = LogProbPipeline(pipeline, 6, eta=eta, **options)
    sampled = two_each(policy)
    stock = np.stack([np.asarray(image) for image in stock_run(pipeline, policy)]).astype(int)
    assert (sampled.images.shape, sampled.images.dtype) == ((4, 32, 32, 3), torch.uint8)
    assert np.abs(sampled.images.numpy() - stock).max() <= 1
    latents = stock_run(pipeline, policy, output_type="latent")
    torch.testing.assert_close(sampled.trajectory.latents[:, -1], latents, rtol=1e-4, atol=1e-4)


def test_a_negative_prompt_holds_for_all_prompts(tiny_pipeline):
    pipeline = tiny_pipeline()
    policy = LogProbPipeline(pipeline, 4, 5.0, pipeline_kwargs={"negative_prompt": "blurry"})
    sampled = two_each(policy)
    options = {"num_inference_steps": 4, "guidance_scale": 5.0, "eta": 1.0, "output_type": "latent"}
    many = {"num_images_per_prompt": 2, "generator": image_generators(SEEDS)}
    latents = pipeline(PROMPTS, negative_prompt=["blurry", "blurry"], **many, **options).images
    torch.testing.assert_close(sampled.trajectory.latents[:, -1], latents, rtol=1e-4, atol=1e-4)
    images = stock_images(pipeline, PROMPTS * 2, SEEDS, 4, policy.sampling_kwargs)
    alone = pipeline(
        "a cat", negative_prompt="blurry", generator=image_generators(SEEDS[:1]), **{**options, "output_type": "pt"}
    ).images
    assert (images[0].int() - to_uint8(alone)[0].int()).abs().max() <= 1
    without = LogProbPipeline(pipeline, 4, 5.0)
    assert not torch.allclose(two_each(without).trajectory.latents[:, -1], latents, atol=1e-2)


@pytest.mark.parametrize("scheduler", [PNDMScheduler, EulerDiscreteScheduler])
def test_other_samplers_of_the_family_lend_their_noise_schedule(tiny_pipeline, scheduler):
    pipeline = tiny_pipeline()
    pipeline.scheduler = scheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    policy = LogProbPipeline(pipeline, 6, 5.0)
    sampled = two_each(policy)
    assert type(pipeline.scheduler) is scheduler
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    latents = stock_run(pipeline, policy, output_type="latent")
    torch.testing.assert_close(sampled.trajectory.latents[:, -1], latents, rtol=1e-4, atol=1e-4)


def test_the_embedded_model(embedded_pipeline):
    policy = LogProbPipeline(embedded_pipeline, 4, 5.0)
    sampled = two_each(policy)
    stock = np.stack([np.asarray(image) for image in stock_run(embedded_pipeline, policy)]).astype(int)
    assert np.abs(sampled.images.numpy() - stock).max() <= 1


# The ratio


def all_log_ratios(policy, trajectory, denoiser=None):
    """Of all images at each step, as they were sampled; with gradients, as in training."""
    rows = torch.arange(len(trajectory))
    return [
        policy.ratio_terms(trajectory, rows, torch.full_like(rows, step), denoiser).log_ratio.tolist()
        for step in policy.table.stochastic_steps.tolist()
    ]


@pytest.mark.parametrize("options", GUIDANCE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_ratio_is_exactly_one_before_any_update(tiny_pipeline, options, dtype):
    pipeline = tiny_pipeline()
    denoiser = add_adapter(pipeline)
    policy = LogProbPipeline(pipeline.to(dtype), 6, **options)
    trajectory = two_each(policy, denoiser=denoiser).trajectory
    assert (trajectory.latents.dtype, trajectory.model_outputs.dtype) == (torch.float32, dtype)
    assert all_log_ratios(policy, trajectory, denoiser) == [[0.0] * 4] * 6


@pytest.mark.parametrize("options", GUIDANCE)
def test_the_ratio_hardly_depends_on_the_batch(tiny_pipeline, options):
    policy = LogProbPipeline(tiny_pipeline("v_prediction"), 6, **options)
    trajectory = two_each(policy).trajectory
    every = torch.cartesian_prod(torch.arange(4), torch.arange(6))
    for batch in (every[torch.randperm(24)], *every[torch.randperm(24)].split(5)):
        terms = policy.ratio_terms(trajectory, *batch.unbind(1))
        assert terms.log_ratio.abs().max() < 1e-5
        assert terms.kl.abs().max() < 1e-8


def test_the_ratio_follows_the_weights(tiny_pipeline):
    """Oracle: the log-probabilities of the stored latents under both policies, in float64."""
    pipeline = tiny_pipeline("v_prediction")
    denoiser = add_adapter(pipeline)
    policy = LogProbPipeline(pipeline, 6, 5.0)
    trajectory = two_each(policy, denoiser=denoiser).trajectory
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            if "lora_B" in name:
                parameter.mul_(1.5)
    rows, steps = torch.tensor([3, 0, 2, 3]), torch.tensor([0, 5, 2, 4])
    terms = policy.ratio_terms(trajectory, rows, steps, denoiser)
    new = policy.predict(trajectory.conditioning, trajectory.latents[rows, steps], rows, steps, denoiser)
    expected = float64_log_prob(trajectory, rows, steps, new) - float64_log_prob(
        trajectory, rows, steps, trajectory.model_outputs[rows, steps]
    )
    assert terms.log_ratio.abs().min() > 1e-6
    torch.testing.assert_close(terms.log_ratio.double(), expected, rtol=1e-4, atol=1e-8)


def float64_log_prob(trajectory, rows, steps, model_output):
    table = trajectory.table
    latents_coef, output_coef, std = (
        coef[steps].reshape(-1, 1, 1, 1) for coef in (table.latents_coef, table.output_coef, table.std)
    )
    mean = latents_coef * trajectory.latents[rows, steps].double() + output_coef * model_output.double()
    next_latents = trajectory.latents[rows, steps + 1].double()
    return Normal(mean, std.expand_as(mean)).log_prob(next_latents).flatten(1).mean(1)


@pytest.mark.skipif(
    Version(transformers.__version__).major < 5, reason="CLIP's mask of transformers 4 overflows in float64"
)
@pytest.mark.parametrize("options", GUIDANCE)
def test_gradients_are_finite_differences(tiny_pipeline, options):
    """In float64, of the log-probability, through both branches of guidance, for every LoRA matrix."""
    pipeline = tiny_pipeline("v_prediction")
    denoiser = add_adapter(pipeline)
    policy = LogProbPipeline(pipeline, 4, **options)
    trajectory = two_each(policy, denoiser=denoiser).trajectory
    rows, steps = torch.tensor([0, 2, 3]), torch.tensor([1, 0, 3])
    policy.ratio_terms(trajectory, rows, steps, denoiser).log_ratio.mean().backward()
    gradients = {
        name: parameter.grad.clone() for name, parameter in denoiser.named_parameters() if parameter.requires_grad
    }
    assert len(gradients) == 2 * 4 * 2, "attentions, projections, matrices"

    policy = LogProbPipeline(pipeline.to(torch.float64), 4, **options)
    (((call,),), conditioning) = (trajectory.conditioning.groups, trajectory.conditioning)
    precise = replace(call, per_image={name: value.double() for name, value in call.per_image.items()})
    trajectory = replace(trajectory, conditioning=replace(conditioning, groups=((precise,),)))

    @torch.no_grad()
    def mean_log_prob(values, index, value):
        values[index] = value
        prediction = policy.predict(trajectory.conditioning, trajectory.latents[rows, steps], rows, steps, denoiser)
        return float64_log_prob(trajectory, rows, steps, prediction).mean().item()

    for name, gradient in gradients.items():
        index = np.unravel_index(int(gradient.abs().argmax()), gradient.shape)
        values = denoiser.get_parameter(name).data
        value = values[index].item()
        difference = mean_log_prob(values, index, value + 1e-4) - mean_log_prob(values, index, value - 1e-4)
        values[index] = value
        assert gradient[index] != 0, name
        assert gradient[index].item() == pytest.approx(difference / 2e-4, rel=1e-3), name


# What is recorded, and what must not change


def test_a_trajectory_goes_from_noise_to_the_decoded_latents(tiny_pipeline):
    pipeline = tiny_pipeline()
    policy = LogProbPipeline(pipeline, 6, 5.0)
    steps = []
    sampled = two_each(policy, on_step=steps.append)
    trajectory = sampled.trajectory
    assert steps == list(range(6))
    assert (trajectory.latents.shape, trajectory.model_outputs.shape) == ((4, 7, 4, 8, 8), (4, 6, 4, 8, 8))
    noise = torch.stack([torch.randn(1, 4, 8, 8, generator=generator)[0] for generator in image_generators(SEEDS)])
    assert torch.equal(trajectory.latents[:, 0], noise)
    with torch.no_grad():
        decoded = pipeline.vae.decode(trajectory.latents[:, -1]).sample
    expected = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255
    assert (sampled.images - expected).abs().max() <= 0.5 + 1e-4


def test_prompts_are_encoded_once(tiny_pipeline):
    pipeline = tiny_pipeline()
    rows = []
    for scale, expected in ((1.0, [3]), (5.0, [3, 3])):  # guidance encodes as many empty prompts
        policy = LogProbPipeline(pipeline, 2, scale)
        handle = pipeline.text_encoder.register_forward_hook(lambda module, args, output: rows.append(len(output[0])))
        policy.sample(["a cat", "a dog", "a bear"], image_generators(range(12)), num_images_per_prompt=4)
        handle.remove()
        assert rows == expected
        rows.clear()


def test_an_image_does_not_depend_on_its_batch(tiny_pipeline):
    policy = LogProbPipeline(tiny_pipeline("v_prediction"), 6, 5.0)
    together = two_each(policy)
    for image, seed in enumerate(SEEDS):
        alone = policy.sample([PROMPTS[image // 2]], image_generators([seed]))
        torch.testing.assert_close(
            alone.trajectory.latents[0], together.trajectory.latents[image], rtol=1e-4, atol=1e-4
        )
        assert (alone.images[0].int() - together.images[image].int()).abs().max() <= 1
    other_seed = policy.sample([PROMPTS[0]], image_generators([99]))
    assert (other_seed.images[0].int() - together.images[0].int()).abs().max() > 50


def test_the_pipeline_is_restored(tiny_pipeline):
    pipeline = tiny_pipeline()
    unet, scheduler, config = pipeline.unet, pipeline.scheduler, dict(pipeline.config)

    def restored():
        return pipeline.unet is unet and pipeline.scheduler is scheduler and dict(pipeline.config) == config

    policy = LogProbPipeline(pipeline, 3, 5.0)
    assert restored()
    two_each(policy)
    assert restored()

    def stop(step):
        assert not restored(), "during a run they are swapped"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        two_each(policy, on_step=stop)
    assert restored()
    assert policy.denoiser is unet
    assert "step" not in vars(scheduler)


def test_another_number_of_steps_in_between_changes_nothing(tiny_pipeline):
    """The old trainer read the scheduler's current number of steps: an evaluation corrupted the ratios."""
    pipeline = tiny_pipeline()
    policy = LogProbPipeline(pipeline, 6, 5.0)
    trajectory = two_each(policy).trajectory
    pipeline(["a fish"], num_inference_steps=3)
    policy.runner.sampler.scheduler.set_timesteps(3)
    assert all_log_ratios(policy, trajectory) == [[0.0] * 4] * 6


def test_the_trained_denoiser_makes_all_calls(tiny_pipeline):
    pipeline = tiny_pipeline()
    policy = LogProbPipeline(pipeline, 4, 5.0)
    unet, calls = pipeline.unet, []

    def denoiser(*args, **kwargs):
        calls.append(len(kwargs["sample"]))
        return unet(*args, **kwargs)

    trajectory = two_each(policy, denoiser=denoiser).trajectory
    assert calls == [8] * 4
    policy.ratio_terms(trajectory, torch.tensor([0, 1, 2]), torch.tensor([1, 1, 0]), denoiser)
    assert calls[4:] == [6]


def test_trajectories_are_joined_image_by_image(tiny_pipeline):
    policy = LogProbPipeline(tiny_pipeline("v_prediction"), 4, 5.0)
    first = policy.sample(["a cat"], image_generators(SEEDS[:2]), num_images_per_prompt=2).trajectory
    second = policy.sample(["a dog"], image_generators(SEEDS[2:3])).trajectory.cpu()
    joined = joined_runs([first, second])
    assert len(joined) == 3
    assert torch.equal(joined.latents[2], second.latents[0])
    assert policy.ratio_terms(joined, torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0])).log_ratio.abs().max() < 1e-5


def test_batches_of_other_lengths_are_joined_in_groups(tiny_pipeline):
    """As pipelines make them that pad prompts to the longest of a batch."""
    policy = LogProbPipeline(tiny_pipeline("v_prediction"), 4, 5.0)
    trajectories = []
    for length, seeds in ((16, SEEDS[:2]), (11, SEEDS[2:]), (16, [15, 16])):
        trajectory = policy.sample(["a cat"], image_generators(seeds), num_images_per_prompt=2).trajectory
        ((call,),) = trajectory.conditioning.groups
        cut = {name: value[:, :, :length] for name, value in call.per_image.items()}
        conditioning = Conditioning.of_batch((replace(call, per_image=cut),), 2)
        trajectories.append(replace(trajectory, conditioning=conditioning))
    joined = joined_runs(trajectories)
    assert [len(calls[0]) for calls in joined.conditioning.groups] == [4, 2]
    rows, steps = torch.tensor([3, 0, 5, 2, 4, 1]), torch.tensor([1, 3, 0, 2, 1, 1])
    together = policy.predict(joined.conditioning, joined.latents[rows, steps], rows, steps)
    for row, step, prediction in zip(rows.tolist(), steps.tolist(), together, strict=True):
        own = trajectories[row // 2]
        index, at = torch.tensor([row % 2]), torch.tensor([step])
        alone = policy.predict(own.conditioning, own.latents[index, at], index, at)[0]
        torch.testing.assert_close(prediction, alone, rtol=1e-4, atol=1e-5)
    again = joined_runs([joined_runs(trajectories[:2]), trajectories[2]])
    assert torch.equal(again.conditioning.group_of, joined.conditioning.group_of)
    assert torch.equal(again.conditioning.row_of, joined.conditioning.row_of)


# A pipeline of another kind


def test_two_calls_for_each_step(two_call_pipeline):
    policy = LogProbPipeline(two_call_pipeline, 5, guidance_scale=None)
    guidance = policy.findings.guidance
    assert (guidance.name, guidance.scale, guidance.cond_first, guidance.sign) == ("cfg", 4.0, True, -1)
    assert [layout.copies for layout in policy.findings.layouts] == [1, 1]
    assert {layout.per_image for layout in policy.findings.layouts} == {frozenset({"texts"})}
    trajectory = two_each(policy).trajectory
    assert all_log_ratios(policy, trajectory) == [[0.0] * 4] * 5
    mixed = policy.ratio_terms(trajectory, torch.tensor([3, 0, 1]), torch.tensor([0, 4, 2]))
    assert mixed.log_ratio.abs().max() < 1e-5


def test_guidance_that_stops_on_the_way_is_refused(two_call_pipeline):
    policy = LogProbPipeline(two_call_pipeline, 5, guidance_scale=None, pipeline_kwargs={"skip_guidance_from": 3})
    with pytest.raises(PipelineError, match=r"Step 3 made 1 denoiser calls; the first step made 2.*guidance_end"):
        two_each(policy)


# Refusals


def after_each_step(**changes):
    """Have the pipeline itself change a tensor between steps."""

    def callback(pipeline, step, timestep, tensors):
        return {name: change(tensors[name]) for name, change in changes.items()}

    return {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": list(changes)}


def test_an_argument_that_changes_from_step_to_step_is_refused(tiny_pipeline):
    policy = LogProbPipeline(tiny_pipeline(), 4, pipeline_kwargs=after_each_step(prompt_embeds=lambda x: 1.01 * x))
    with pytest.raises(PipelineError, match="argument 'encoder_hidden_states' changes at step 1; only the latents"):
        two_each(policy)


def test_latents_that_change_between_two_steps_are_refused(tiny_pipeline):
    policy = LogProbPipeline(tiny_pipeline(), 4, pipeline_kwargs=after_each_step(latents=lambda x: x.clamp(-1, 1)))
    with pytest.raises(PipelineError, match=r"changes the latents between steps 0 and 1 \(in a callback"):
        two_each(policy)


def test_latents_that_the_denoiser_does_not_get_are_refused(two_call_pipeline):
    """A pipeline may scale them for its denoiser; the scheduler then sees others."""
    with pytest.raises(
        PipelineError, match=r"At step 0 the pipeline changes the latents .*\(argument 'hidden_states': scaled"
    ):
        LogProbPipeline(two_call_pipeline, 4, guidance_scale=None, pipeline_kwargs={"scale_input": 0.5})


def test_guidance_that_changes_on_the_way_is_refused(tiny_pipeline):
    def lower(pipeline, step, timestep, tensors):
        pipeline._guidance_scale = 4.0
        return {}

    policy = LogProbPipeline(tiny_pipeline(), 4, 5.0, pipeline_kwargs={"callback_on_step_end": lower})
    with pytest.raises(
        GuidanceError, match=r"At step 1 the guidance rule 'cfg' is off by .* Does the guidance scale change"
    ):
        two_each(policy)


def test_schedulers_of_other_families_are_refused(tiny_pipeline):
    pipeline = tiny_pipeline()
    pipeline.scheduler = CMStochasticIterativeScheduler()
    with pytest.raises(PipelineError, match="scheduler is a CMStochasticIterativeScheduler"):
        LogProbPipeline(pipeline, 4)


def test_a_pipeline_argument_that_does_not_exist_is_refused(tiny_pipeline):
    with pytest.raises(
        PipelineError, match=r"StableDiffusionPipeline has no argument 'negativ_prompt'.*negative_prompt"
    ):
        LogProbPipeline(tiny_pipeline(), 4, pipeline_kwargs={"negativ_prompt": "blurry"})


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_eta_without_log_probabilities_is_refused(tiny_pipeline, eta):
    with pytest.raises(ConfigError, match=f"eta is {eta}; it must be in"):
        LogProbPipeline(tiny_pipeline(), 4, eta=eta)


def test_a_guidance_rule_that_does_not_exist_is_refused(tiny_pipeline):
    with pytest.raises(GuidanceError, match="Unknown guidance rule 'cfgg'"):
        LogProbPipeline(tiny_pipeline(), 4, guidance="cfgg")


def test_a_guidance_rule_that_is_not_the_pipelines_is_refused(tiny_pipeline):
    with pytest.raises(GuidanceError, match=re.escape("No guidance rule of cfg_from_cond explains")):
        LogProbPipeline(tiny_pipeline(), 4, 5.0, guidance="cfg_from_cond")


def test_zero_terminal_snr_is_refused_before_any_work(tiny_pipeline):
    with pytest.raises(PipelineError, match=r"not finite.*zero terminal SNR"):
        LogProbPipeline(tiny_pipeline(timestep_spacing="trailing", rescale_betas_zero_snr=True), 4)


def test_a_pipeline_without_a_denoiser_is_refused():
    class Upscaler(DiffusionPipeline):
        def __init__(self, scheduler):
            super().__init__()
            self.register_modules(scheduler=scheduler)

    with pytest.raises(
        PipelineError, match="Upscaler has the components scheduler; DDPO trains one named unet or transformer"
    ):
        LogProbPipeline(Upscaler(DDIMScheduler()), 4)
