"""What is asked of every family of pipelines, and of pipelines that a plugin makes work."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchLCMScheduler

from support.trainers import prompts
from support.zoo import cast, in_bfloat16
from trainer_ext.learning.algorithms import resolve_algorithm
from trainer_ext.learning.fused.tape import GradientTape
from trainer_ext.learning.rollout import Rollout
from trainer_ext.model.denoiser import TrainedDenoiser
from trainer_ext.model.lora import default_lora_config
from trainer_ext.options import DDPOOptions
from trainer_ext.policy.deviations import Replayed
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.seeds import image_generators
from trainer_ext.policy.stock import default_images, stock_images

PROMPTS = ["a cat", "a dog riding a bike"]
SEEDS = [11, 12, 13, 14]


def make_policy(family, pipeline, **options):
    return LogProbPipeline(pipeline, **{"num_inference_steps": 4, **family.options, **options})


def add_adapter(policy):
    """The adapter that is trained. It changes nothing at first, so that some gradients are 0: give it some weight."""
    denoiser = TrainedDenoiser(policy.denoiser, policy.denoiser_name, default_lora_config(policy.denoiser))
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return denoiser


def two_each(policy, denoiser=None):
    return policy.sample(PROMPTS, image_generators(SEEDS), num_images_per_prompt=2, denoiser=denoiser)


def trainable(denoiser):
    return {name: parameter for name, parameter in denoiser.named_parameters() if parameter.requires_grad}


def mixed(policy, trajectory, denoiser=None):
    """Largest log-ratio of all steps of all images, in any order and in batches of other sizes than they were sampled in."""
    pairs = torch.cartesian_prod(torch.arange(len(trajectory)), trajectory.table.stochastic_steps)
    return max(
        policy.ratio_terms(trajectory, *batch.unbind(1), denoiser).log_ratio.abs().max().item()
        for size in (1, 5, 12)
        for batch in pairs[torch.randperm(len(pairs))].split(size)
    )


def as_sampled(policy, trajectory, denoiser):
    rows = torch.arange(len(trajectory))
    return [
        policy.ratio_terms(trajectory, rows, torch.full_like(rows, step), denoiser).log_ratio.tolist()
        for step in trajectory.table.stochastic_steps.tolist()
    ]


def images_are_those_of_the_stock_pipeline(family, pipeline):
    """With DDIM's noise from the same generators; without any for flow matching, as the stock pipeline samples."""
    policy = make_policy(family, pipeline, noise_level=1e-9)
    sampled = two_each(policy)
    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    stock = stock_images(pipeline, prompts, SEEDS, 4, policy.sampling_kwargs)
    assert (sampled.images.int() - stock.int()).abs().max() <= 1
    assert sampled.images[0].float().std() > 1, "a plain image would say nothing"


def runs_of_the_pipelines_own_scheduler_are_replayed(family, pipeline):
    """Its images bit for bit, where it does not draw from the global generator; and each step as it was sampled."""
    policy = make_policy(family, pipeline, sampler="own")
    plain = policy.sample(PROMPTS, image_generators(SEEDS[:2]))
    if not isinstance(pipeline.scheduler, FlowMatchLCMScheduler):
        expected = default_images(pipeline, PROMPTS, SEEDS[:2], 2, policy.sampling_kwargs)
        assert torch.equal(plain.images, expected)
    denoiser = add_adapter(policy)
    trajectory = two_each(policy, denoiser).trajectory
    assert policy.findings.guidance.name == family.guidance
    for step in range(policy.table.num_steps):
        replayed = Replayed.at_step(trajectory, torch.tensor(step))
        assert replayed.deviations(policy, denoiser).tolist() == [0.0] * 4


def the_gradient_of_matching_is_a_finite_difference(family, pipeline):
    """Along itself, of a loss that is written here once more; over mixed steps of four images, two of each prompt."""
    policy = make_policy(family, pipeline, sampler="own")
    denoiser = add_adapter(policy)
    options = DDPOOptions(algorithm="awm")
    algorithm = resolve_algorithm(None, options).bind(options, np.ones(1), policy.table, policy.noising)
    rollout = Rollout(0, algorithm.retain(two_each(policy, denoiser).trajectory), torch.tensor([5.0, -2.5, 1.0, -5.0]))
    images, steps = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([0, 1, 2, 3, 2, 3]) % policy.table.num_steps
    batch = algorithm.minibatch(rollout, images, steps, torch.Generator().manual_seed(0))
    table, signs = policy.noising, torch.tensor([1.0, -0.5, 0.2, -1.0, 1.0, -0.5])

    def errors():
        prediction = policy.predict(rollout.data.conditioning, batch.latents, images, steps, denoiser)
        return (prediction - batch.targets).flatten(1), prediction

    before, prediction = errors()
    parameters = list(trainable(denoiser).values())
    gradient = torch.autograd.grad(algorithm.loss(batch, prediction).loss, parameters)
    size = torch.stack([value.norm() for value in gradient]).norm()
    weights = signs * (table.noise / (table.signal + table.noise))[steps] / before.detach().abs().mean(1)
    found = []
    with torch.no_grad():
        for width in (5e-3, -5e-3):
            for parameter, value in zip(parameters, gradient, strict=True):
                parameter += width * value / size
            found.append((weights * errors()[0].square().mean(1)).double().mean())
            for parameter, value in zip(parameters, gradient, strict=True):
                parameter -= width * value / size
    slope = (found[0] - found[1]).item() / 1e-2
    assert slope == pytest.approx(size.item(), rel=5e-2)


def ratios_are_one_before_any_update(family, pipeline, dtype):
    policy = make_policy(family, pipeline if dtype == torch.float32 else in_bfloat16(pipeline))
    denoiser = add_adapter(policy)
    trajectory = two_each(policy, denoiser).trajectory
    num_steps = len(trajectory.table.stochastic_steps)
    assert policy.findings.guidance.name == family.guidance
    assert as_sampled(policy, trajectory, denoiser) == [[0.0] * 4] * num_steps
    if dtype == torch.float32:
        assert mixed(policy, trajectory, denoiser) < 1e-5


def gradients_are_finite_differences(family, pipeline):
    """They reach every matrix of the adapter; of some, the largest is checked, in float64 where the model can."""
    policy = make_policy(family, pipeline)
    denoiser = add_adapter(policy)
    trajectory = two_each(policy, denoiser).trajectory
    cast(denoiser, family.dtype)
    layouts = tuple(replace(layout, dtype=family.dtype) for layout in policy.findings.layouts)
    policy.findings = replace(policy.findings, layouts=layouts)
    (calls,) = trajectory.conditioning.groups
    conditioning = replace(trajectory.conditioning, groups=(tuple(call_in(call, family.dtype) for call in calls),))
    rows, steps = torch.tensor([0, 2, 3]), torch.tensor([1, 0, 2])
    latents = trajectory.latents[rows, steps].to(family.dtype)
    weights = torch.randn(latents.shape, dtype=torch.float64)

    def weighted():
        return (weights * policy.predict(conditioning, latents, rows, steps, denoiser)).sum()

    weighted().backward()
    parameters = trainable(denoiser)
    assert len(parameters) > 4
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in parameters.values())
    # Some denoisers compute norms in float32 whatever they are given: take the largest gradients, and steps above rounding
    checked = [name for name in parameters if family.differentiable in name]
    width = 1e-3 if family.dtype == torch.float64 else 1e-2
    for name in sorted(checked, key=lambda name: parameters[name].grad.abs().max(), reverse=True)[:3]:
        parameter = parameters[name]
        index = np.unravel_index(int(parameter.grad.abs().argmax()), parameter.shape)
        value = parameter[index].item()
        with torch.no_grad():
            parameter[index] = value + width
            above = weighted().item()
            parameter[index] = value - width
            difference = (above - weighted().item()) / (2 * width)
            parameter[index] = value
        assert parameter.grad[index].item() == pytest.approx(difference, rel=2e-2), name


def weighted_gradient(policy, denoiser, trajectory, weights, size):
    """The gradient of the images' weighted log-probabilities over all steps, in forward passes of `size` pairs, flat."""
    pairs = torch.cartesian_prod(trajectory.table.stochastic_steps, torch.arange(len(trajectory)))
    denoiser.zero_grad()
    for batch in pairs.split(size):
        steps, rows = batch.unbind(1)
        log_ratio = policy.ratio_terms(trajectory, rows, steps, denoiser).log_ratio
        (weights[rows] * log_ratio).sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in trainable(denoiser).values()])


def gradients_of_several_steps_at_once_are_those_of_single_steps(family, pipeline):
    policy = make_policy(family, pipeline)
    denoiser = add_adapter(policy)
    trajectory, weights = two_each(policy, denoiser).trajectory, torch.tensor([1.0, -2.0, 0.5, 1.5])
    single, several = (weighted_gradient(policy, denoiser, trajectory, weights, size) for size in (4, 7))
    assert single.norm() > 0
    assert (several - single).norm() < 1e-4 * single.norm()


def gradients_of_images_while_they_are_sampled_are_those_of_replaying(family, pipeline):
    policy = make_policy(family, pipeline)
    denoiser = add_adapter(policy)
    tape = GradientTape(policy, denoiser, policy.table.stochastic_steps.tolist(), len(SEEDS), keeps_first=True)
    arguments = {"prompts": PROMPTS, "generators": image_generators(SEEDS), "num_images_per_prompt": 2}
    with tape.recording() as call:
        sampled = policy.sample(**arguments, denoiser=call, on_transition=tape.learn)
    plain = two_each(policy, denoiser)
    # attention may round differently where gradients are taken
    torch.testing.assert_close(sampled.trajectory.latents, plain.trajectory.latents, rtol=1e-3, atol=1e-4)
    weights = torch.tensor([1.0, -2.0, 0.5, 1.5])
    found = torch.cat([value.flatten() for value in tape.gradients.weighted(weights, torch.arange(4)).values()])
    expected = weighted_gradient(policy, denoiser, sampled.trajectory, weights, 4)
    allowed = 1e-4 if family.dtype == torch.float64 else 3e-2  # some round to bfloat16, whatever they are given
    assert (found - expected).norm() < allowed * expected.norm()
    assert tape.error(Replayed.at_step(sampled.trajectory, policy.table.stochastic_steps[0])) < allowed


def call_in(call, dtype):
    """Its arguments; timesteps too."""
    return replace(
        call,
        per_image={name: floats_in(value, dtype) for name, value in call.per_image.items()},
        shared={name: floats_in(value, dtype) for name, value in call.shared.items()},
        timesteps=floats_in(call.timesteps, dtype),
    )


def floats_in(value, dtype):
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, list | tuple):
        return type(value)(floats_in(inner, dtype) for inner in value)
    return value


def rise_in_brightness(make_trainer, num_images, **options):
    """Train on one prompt; return how much brighter its images are then, in standard deviations over them."""
    batches = {
        "num_images_per_rollout": num_images,
        "rollout_batch_size": num_images,
        "per_device_train_batch_size": num_images,
    }
    objective = {"clip_range": 1.0, "skip_last_steps": 1, "advantages": "batch"}
    trainer = make_trainer(dataset=prompts(*PROMPTS[:1] * num_images), **batches, **objective, **options)

    def bright():
        sampled = trainer.policy.sample(PROMPTS[:1], image_generators(range(16)), num_images_per_prompt=16)
        return sampled.images.float().mean((1, 2, 3))

    before = bright()
    trainer.train()
    return ((bright() - before).mean() / before.std()).item()
