"""The same questions to every family of pipelines."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from datasets import Dataset
from diffusers.loaders.lora_base import LoraBaseMixin
from peft import PeftModel
from safetensors.torch import load_file
from support import zoo

from trainer_ext import DDPOConfig, DDPOTrainer
from trainer_ext.errors import PipelineError
from trainer_ext.model.denoiser import TrainedDenoiser
from trainer_ext.model.loading import load_pipeline
from trainer_ext.model.lora import LORA_FILE, default_lora_config
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.runner import find_denoiser
from trainer_ext.policy.seeds import image_generators
from trainer_ext.policy.stock import stock_images

PROMPTS = ["a cat", "a dog riding a bike"]
SEEDS = [11, 12, 13, 14]


@cache
def built(name):
    torch.manual_seed(0)
    return zoo.FAMILIES[name].build()


@pytest.fixture(params=zoo.FAMILIES)
def family(request):
    return zoo.FAMILIES[request.param]


@pytest.fixture
def pipeline(family):
    return copy.deepcopy(built(family.name))


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


def test_images_are_those_of_the_stock_pipeline(family, pipeline):
    """With DDIM's noise from the same generators; without any for flow matching, as the stock pipeline samples."""
    policy = make_policy(family, pipeline, noise_level=1e-9)
    sampled = two_each(policy)
    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    stock = stock_images(pipeline, prompts, SEEDS, 4, policy.sampling_kwargs)
    assert (sampled.images.int() - stock.int()).abs().max() <= 1
    assert sampled.images[0].float().std() > 1, "a plain image would say nothing"


@pytest.mark.filterwarnings(
    "ignore:Mismatch dtype between input and weight:UserWarning"
)  # Kandinsky 5's norms, in bf16
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ratios_are_one_before_any_update(family, pipeline, dtype):
    policy = make_policy(family, pipeline if dtype == torch.float32 else zoo.in_bfloat16(pipeline))
    denoiser = add_adapter(policy)
    trajectory = two_each(policy, denoiser).trajectory
    num_steps = len(trajectory.table.stochastic_steps)
    assert policy.findings.guidance.name == family.guidance
    assert as_sampled(policy, trajectory, denoiser) == [[0.0] * 4] * num_steps
    if dtype == torch.float32:
        assert mixed(policy, trajectory, denoiser) < 1e-5


def test_gradients_are_finite_differences(family, pipeline):
    """They reach every matrix of the adapter; of some, the largest is checked, in float64 where the model can."""
    policy = make_policy(family, pipeline)
    denoiser = add_adapter(policy)
    trajectory = two_each(policy, denoiser).trajectory
    zoo.cast(denoiser, family.dtype)
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


def test_the_adapter_loads_in_the_stock_pipeline(family, pipeline, tmp_path):
    stock = copy.deepcopy(pipeline)
    policy = make_policy(family, pipeline)
    denoiser = add_adapter(policy)
    denoiser.save(tmp_path, pipeline)
    expected = stock_images(pipeline, PROMPTS, SEEDS[:2], 2, policy.sampling_kwargs)
    without = stock_images(stock, PROMPTS, SEEDS[:2], 2, policy.sampling_kwargs)
    if isinstance(stock, LoraBaseMixin):
        assert all(name.startswith(f"{policy.denoiser_name}.") for name in load_file(tmp_path / LORA_FILE))
        stock.load_lora_weights(tmp_path, weight_name=LORA_FILE)
    else:
        PeftModel.from_pretrained(stock.components[policy.denoiser_name], tmp_path)  # injected in place
    assert torch.equal(stock_images(stock, PROMPTS, SEEDS[:2], 2, policy.sampling_kwargs), expected)
    assert not torch.equal(without, expected)
    with torch.no_grad():
        for parameter in trainable(denoiser).values():
            parameter.zero_()
    denoiser.load(tmp_path)
    assert torch.equal(stock_images(pipeline, PROMPTS, SEEDS[:2], 2, policy.sampling_kwargs), expected)


def test_three_updates_raise_the_reward(family, pipeline, tmp_path):
    """Steps of one length along the gradient: Adam would move every weight as far, most of them by noise."""

    def brightness(images, prompts, **columns):
        return [float(np.asarray(image).mean()) for image in images]

    num_images, num_steps, length = family.learning
    args = DDPOConfig(
        output_dir=str(tmp_path),
        num_inference_steps=num_steps,
        num_images_per_rollout=num_images,
        rollout_batch_size=num_images,
        per_device_train_batch_size=num_images,
        gradient_accumulation_steps=1,
        num_train_epochs=3,
        optim="sgd",
        max_grad_norm=1e-3,  # below every gradient's
        learning_rate=length * 1e3,
        clip_range=1.0,
        skip_last_steps=1,
        advantages="batch",
        num_sample_images=0,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **family.options,
    )
    denoiser = pipeline.components[find_denoiser(pipeline)]
    adapter = default_lora_config(denoiser)
    adapter.target_modules |= {"conv_out", "proj_out"} & {name for name, _ in denoiser.named_modules()}
    trainer = DDPOTrainer(
        pipeline, brightness, args, Dataset.from_dict({"prompt": PROMPTS[:1] * num_images}), peft_config=adapter
    )

    def bright():
        sampled = trainer.policy.sample(PROMPTS[:1], image_generators(range(16)), num_images_per_prompt=16)
        return sampled.images.float().mean((1, 2, 3))

    before = bright()
    trainer.train()
    rise = (bright() - before).mean() / before.std()
    assert rise > 0.1, "of the standard deviation over images"


def test_controlnet_is_refused():
    """Its residuals follow the latents, so that they are others at every step."""
    pipeline = load_pipeline(zoo.stable_diffusion_controlnet())
    policy = LogProbPipeline(pipeline, 3, 4.0, pipeline_kwargs={"image": zoo.PICTURE})
    with pytest.raises(PipelineError, match="argument 'down_block_additional_residuals' changes at step 1"):
        policy.sample(PROMPTS[:1], image_generators(SEEDS[:1]))
