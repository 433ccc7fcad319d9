"""The same questions to every family of pipelines."""

import copy
from functools import cache

import pytest
import torch
from diffusers.loaders.lora_base import LoraBaseMixin
from peft import PeftModel
from safetensors.torch import load_file
from support import zoo
from support.trainers import brightness
from support.zoo_questions import (
    PROMPTS,
    SEEDS,
    add_adapter,
    gradients_are_finite_differences,
    gradients_of_images_while_they_are_sampled_are_those_of_replaying,
    gradients_of_several_steps_at_once_are_those_of_single_steps,
    images_are_those_of_the_stock_pipeline,
    make_policy,
    ratios_are_one_before_any_update,
    rise_in_brightness,
    runs_of_the_pipelines_own_scheduler_are_replayed,
    the_gradient_of_matching_is_a_finite_difference,
    trainable,
)

from trainer_ext.errors import PipelineError
from trainer_ext.file_names import LORA_FILE
from trainer_ext.model.loading import load_pipeline
from trainer_ext.model.lora import default_lora_config
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.runner import find_denoiser
from trainer_ext.policy.seeds import image_generators
from trainer_ext.policy.stock import stock_images

EVERY = zoo.FAMILIES | zoo.OF_FEW_STEPS


#: Their denoisers predict noise; the others' v, or the flow.
OF_NOISE = {
    "StableDiffusionPipeline",
    "StableDiffusionPipeline, rescaled",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
}
OF_IMAGES = [name for name in EVERY if name not in OF_NOISE]


def darkness(images, prompts, **columns):
    return [-value for value in brightness(images, prompts)]


@cache
def built(name):
    torch.manual_seed(0)
    return EVERY[name].build()


#: One of each kind: noise and rules of DDIM, flow matching without guidance, with classifier-free guidance, and with the rules
#: of its own kind; latents in a list; an adapter that is a folder of PEFT's.
OF_EACH_KIND = {
    "StableDiffusionPipeline, v_prediction",
    "StableDiffusionXLPipeline",
    "FluxPipeline",
    "ChromaPipeline",
    "PixArtSigmaPipeline",
    "ZImagePipeline",
    "Lumina2Pipeline",
    "StableDiffusionPipeline, LCM",
}


def few(names, default):
    """All rows with `-m full`; some by default."""
    return [pytest.param(name, marks=[] if name in default else pytest.mark.full) for name in names]


every_family = pytest.mark.parametrize("family", zoo.FAMILIES, indirect=True)
a_family_of_each_kind = pytest.mark.parametrize("family", few(zoo.FAMILIES, OF_EACH_KIND), indirect=True)


@pytest.fixture
def family(request):
    return EVERY[request.param]


@pytest.fixture
def pipeline(family):
    return copy.deepcopy(built(family.name))


@every_family
def test_images_are_those_of_the_stock_pipeline(family, pipeline):
    images_are_those_of_the_stock_pipeline(family, pipeline)


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # diffusers' DPM-Solver, of Sana
@pytest.mark.parametrize("family", EVERY, indirect=True)
def test_runs_of_the_pipelines_own_scheduler_are_replayed(family, pipeline):
    runs_of_the_pipelines_own_scheduler_are_replayed(family, pipeline)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("family", few(EVERY, OF_EACH_KIND), indirect=True)
def test_the_gradient_of_matching_is_a_finite_difference(family, pipeline):
    the_gradient_of_matching_is_a_finite_difference(family, pipeline)


@every_family
def test_ratios_are_one_before_any_update(family, pipeline):
    ratios_are_one_before_any_update(family, pipeline, torch.float32)


@pytest.mark.filterwarnings(
    "ignore:Mismatch dtype between input and weight:UserWarning"
)  # Kandinsky 5's norms, in bf16
@a_family_of_each_kind
def test_ratios_are_one_in_bfloat16(family, pipeline):
    ratios_are_one_before_any_update(family, pipeline, torch.bfloat16)


@a_family_of_each_kind
def test_gradients_are_finite_differences(family, pipeline):
    gradients_are_finite_differences(family, pipeline)


@a_family_of_each_kind
def test_gradients_of_several_steps_at_once_are_those_of_single_steps(family, pipeline):
    gradients_of_several_steps_at_once_are_those_of_single_steps(family, pipeline)


@a_family_of_each_kind
def test_gradients_of_images_while_they_are_sampled_are_those_of_replaying(family, pipeline):
    gradients_of_images_while_they_are_sampled_are_those_of_replaying(family, pipeline)


@a_family_of_each_kind
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


@a_family_of_each_kind
def test_three_updates_raise_the_reward(family, pipeline, make_trainer):
    """Steps of one length along the gradient: Adam would move every weight as far, most of them by noise."""
    num_images, num_steps, length = family.learning
    denoiser = pipeline.components[find_denoiser(pipeline)]
    adapter = default_lora_config(denoiser)
    adapter.target_modules |= {"conv_out", "proj_out"} & {name for name, _ in denoiser.named_modules()}
    rise = rise_in_brightness(
        make_trainer,
        num_images,
        model=pipeline,
        peft_config=adapter,
        num_inference_steps=num_steps,
        num_train_epochs=3,
        optim="sgd",
        max_grad_norm=1e-3,  # below every gradient's
        learning_rate=length * 1e3,
        **family.options,
    )
    assert rise > 0.1


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("family", few(OF_IMAGES, {"StableDiffusionPipeline, LCM"}), indirect=True)
def test_matching_follows_the_reward(family, pipeline, make_trainer):
    """
    `awm` with the pipeline's own scheduler, steps as above: for brightness and for darkness, which differ in nothing else. What
    matching its own images does to a random model is in both. A random prediction of noise has made its images by being wrong: to
    match them better leads away from them, so that those families are asked for the gradient alone.
    """
    denoiser = pipeline.components[find_denoiser(pipeline)]
    adapter = default_lora_config(denoiser)
    adapter.target_modules |= {"conv_out", "proj_out"} & {name for name, _ in denoiser.named_modules()}
    bright, dark = (
        rise_in_brightness(
            make_trainer,
            64,
            model=copy.deepcopy(pipeline),
            peft_config=copy.deepcopy(adapter),
            reward=reward,
            folder=str(index),
            algorithm="awm",
            num_inference_steps=4,
            num_train_epochs=3,
            optim="sgd",
            max_grad_norm=1e-3,
            learning_rate=family.learning[2] * 1e3,
            **family.options,
        )
        for index, reward in enumerate((brightness, darkness))
    )
    assert bright > dark + 0.1


def test_controlnet_is_refused():
    """Its residuals follow the latents, so that they are others at every step."""
    pipeline = load_pipeline(zoo.stable_diffusion_controlnet())
    policy = LogProbPipeline(pipeline, 3, 4.0, pipeline_kwargs={"image": zoo.PICTURE})
    with pytest.raises(PipelineError, match="argument 'down_block_additional_residuals' changes at step 1"):
        policy.sample(PROMPTS[:1], image_generators(SEEDS[:1]))
