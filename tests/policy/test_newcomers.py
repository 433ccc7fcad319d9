"""
Pipelines that nobody listed: tiny ones with random weights of classes that this project has no line about.

Each works, or is refused before anything is trained, with a message that is enough to go on.
"""

import copy
import re
from functools import partial
from importlib.util import find_spec

import diffusers
import pytest
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler
from packaging.version import Version
from peft import LoraConfig
from support import zoo

from trainer_ext import DDPOConfig
from trainer_ext.doctor.examine import examine
from trainer_ext.errors import ConfigError, GuidanceError, PipelineError
from trainer_ext.model.loading import load_pipeline
from trainer_ext.model.lora import complete_lora_config, default_lora_config
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.seeds import image_generators

# Those that work


def cogview3():
    return diffusers.CogView3PlusPipeline(
        tokenizer=zoo.byte_tokenizer(),
        text_encoder=zoo.t5(),
        vae=zoo.vae_of_eight(),
        transformer=diffusers.CogView3PlusTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=zoo.WIDTH,
            time_embed_dim=8,
            condition_dim=4,
            pos_embed_max_size=8,
            sample_size=8,
        ),
        scheduler=diffusers.CogVideoXDDIMScheduler(set_alpha_to_one=False, prediction_type="v_prediction"),
    )


def deepfloyd_if():
    """In pixels, with a variance that it learned."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=32,
        in_channels=3,
        out_channels=6,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "UpBlock2D"),
        only_cross_attention=True,
        attention_head_dim=4,
        norm_num_groups=4,
        cross_attention_dim=32,
        cross_attention_norm="group_norm",
        encoder_hid_dim=zoo.WIDTH,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        resnet_time_scale_shift="scale_shift",
    )
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", thresholding=True)
    return diffusers.IFPipeline(
        tokenizer=zoo.byte_tokenizer(),
        text_encoder=zoo.t5(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def kandinsky3():
    """Its attention is in modules that the default adapter does not find, but its guidance is found."""
    unet = diffusers.Kandinsky3UNet(
        in_channels=4,
        time_embedding_dim=8,
        groups=2,
        attention_head_dim=4,
        layers_per_block=3,
        block_out_channels=(32, 64),
        cross_attention_dim=4,
        encoder_hid_dim=zoo.WIDTH,
    )
    movq = diffusers.VQModel(
        block_out_channels=[32, 32],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=2,
        num_vq_embeddings=8,
        norm_type="spatial",
        vq_embed_dim=4,
    )
    return diffusers.Kandinsky3Pipeline(
        tokenizer=zoo.byte_tokenizer(),
        text_encoder=zoo.t5(),
        unet=unet,
        scheduler=diffusers.DDPMScheduler(),
        movq=movq,
    )


def wan():
    return diffusers.WanPipeline(
        tokenizer=zoo.byte_tokenizer(),
        text_encoder=zoo.t5(transformers.UMT5Config, transformers.UMT5EncoderModel),
        vae=diffusers.AutoencoderKLWan(
            base_dim=8, z_dim=16, dim_mult=[1] * 4, num_res_blocks=1, temperal_downsample=[False, True, True]
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=diffusers.WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            text_dim=zoo.WIDTH,
            freq_dim=16,
            ffn_dim=32,
            num_layers=1,
            rope_max_seq_len=32,
        ),
    )


def text_to_video():
    return diffusers.TextToVideoSDPipeline(
        vae=zoo.vae_of_eight(),
        text_encoder=zoo.clip_text(transformers.CLIPTextModel),
        tokenizer=zoo.clip_tokenizer(),
        unet=diffusers.UNet3DConditionModel(
            sample_size=8,
            block_out_channels=(8, 8),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            cross_attention_dim=zoo.WIDTH,
            attention_head_dim=4,
            norm_num_groups=2,
        ),
        scheduler=zoo.ddim(),
    )


def flux_kontext():
    return diffusers.FluxKontextPipeline(**zoo.flux().components)


NEEDS_FTFY = pytest.mark.skipif(
    Version(diffusers.__version__) < Version("0.36") and find_spec("ftfy") is None,
    reason="Wan of this diffusers fails without ftfy",
)
SIZE_64 = {"height": 64, "width": 64}

WORKING = [
    pytest.param(cogview3, SIZE_64, "cfg", id="CogView3PlusPipeline"),
    pytest.param(deepfloyd_if, {"clean_caption": False}, "cfg", id="IFPipeline"),
    pytest.param(kandinsky3, SIZE_64, "cfg_summed", id="Kandinsky3Pipeline"),
    pytest.param(
        wan, {"height": 16, "width": 16, "num_frames": 1}, "cfg", id="WanPipeline, one frame", marks=NEEDS_FTFY
    ),
    pytest.param(text_to_video, {"num_frames": 1}, "cfg", id="TextToVideoSDPipeline, one frame"),
    pytest.param(flux_kontext, {**zoo.SIZE, "max_area": 1024}, "none", id="FluxKontextPipeline, no image"),
]


def built(build):
    torch.manual_seed(0)
    return load_pipeline(build())


def config(folder, **options):
    options = {"num_inference_steps": 3, "guidance_scale": 4.0, "disable_tqdm": True, **options}
    return DDPOConfig(output_dir=str(folder), use_cpu=True, **options)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("build", "pipeline_kwargs", "rule"), WORKING)
def test_it_can_be_trained(build, pipeline_kwargs, rule, tmp_path):
    report = examine(built(build), config(tmp_path, pipeline_kwargs=pipeline_kwargs))
    assert report.refusal is None
    found = report.to_dict()
    assert found["guidance"][0]["rule"] == rule
    assert found["replay"][0]["same_layout"] == 0
    assert found["replay"][0]["mixed_steps"] < 1e-5


# Those that are refused


def latent_consistency():
    return diffusers.LatentConsistencyModelPipeline(
        **{**zoo.stable_diffusion().components, "scheduler": diffusers.LCMScheduler()}, requires_safety_checker=False
    )


def perturbed_attention():
    return zoo.stable_diffusion("StableDiffusionPAGPipeline", pag_applied_layers="mid")


def editing(kind, channels):
    parts = {**zoo.stable_diffusion().components, "unet": zoo.unet(in_channels=channels)}
    return getattr(diffusers, kind)(**parts, requires_safety_checker=False)


def lumina():
    return diffusers.LuminaPipeline(
        transformer=diffusers.LuminaNextDiT2DModel(
            sample_size=8,
            in_channels=4,
            hidden_size=16,
            num_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=2,
            cross_attention_dim=zoo.WIDTH,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=zoo.vae_of_eight(),
        text_encoder=zoo.gemma2(),
        tokenizer=zoo.byte_tokenizer(),
    )


def cascade_prior():
    return diffusers.StableCascadePriorPipeline(
        tokenizer=zoo.clip_tokenizer(),
        text_encoder=zoo.clip_text(transformers.CLIPTextModelWithProjection),
        prior=diffusers.models.unets.StableCascadeUNet(
            in_channels=4,
            out_channels=4,
            timestep_ratio_embedding_dim=4,
            patch_size=1,
            conditioning_dim=16,
            block_out_channels=(16, 16),
            num_attention_heads=(2, 2),
            down_num_layers_per_block=(1, 1),
            up_num_layers_per_block=(1, 1),
            down_blocks_repeat_mappers=(1, 1),
            up_blocks_repeat_mappers=(1, 1),
            clip_text_in_channels=zoo.WIDTH,
            clip_text_pooled_in_channels=zoo.WIDTH,
            clip_image_in_channels=zoo.WIDTH,
            switch_level=(False,),
        ),
        scheduler=diffusers.DDPMWuerstchenScheduler(),
    )


def marigold():
    parts = zoo.stable_diffusion().components
    parts = {name: parts[name] for name in ("vae", "scheduler", "text_encoder", "tokenizer")}
    return diffusers.MarigoldDepthPipeline(unet=zoo.unet(in_channels=8), **parts)


def unconditional():
    unet = diffusers.UNet2DModel(
        sample_size=32,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    return diffusers.ConsistencyModelPipeline(unet=unet, scheduler=diffusers.CMStochasticIterativeScheduler())


PICTURE = {"image": zoo.PICTURE}
MASKED = {**PICTURE, "mask_image": zoo.PICTURE, **zoo.SIZE}
INPAINT = "StableDiffusionInpaintPipeline"

REFUSED = [
    pytest.param(
        latent_consistency,
        {},
        PipelineError,
        "scheduler is a LCMScheduler, whose noise schedule .* set pipeline.scheduler to one of them",
        id="LatentConsistencyModelPipeline",
    ),
    pytest.param(
        perturbed_attention,
        {"pag_scale": 3.0},
        GuidanceError,
        "makes 3 denoiser output.*def rule.*cond, other_1, uncond = outputs",
        id="StableDiffusionPAGPipeline",
    ),
    pytest.param(
        partial(zoo.stable_diffusion, "StableDiffusionPanoramaPipeline"),
        {"height": 32, "width": 64},
        PipelineError,
        "changes the latents between scheduler and denoiser .argument 'sample': scaled, noised again",
        id="StableDiffusionPanoramaPipeline",
    ),
    pytest.param(
        partial(zoo.stable_diffusion, "StableDiffusionSAGPipeline"),
        {"height": 32, "width": 32},  # it blurs latents over nine pixels
        PipelineError,
        "changes the latents between scheduler and denoiser .argument 'sample': scaled, noised again",
        id="StableDiffusionSAGPipeline",
    ),
    pytest.param(
        partial(editing, "StableDiffusionInstructPix2PixPipeline", 8),
        PICTURE,
        PipelineError,
        r"denoiser gets \(8, 4, 4\) for each image .*, where the scheduler has \(4, 4, 4\): .* appends something",
        id="StableDiffusionInstructPix2PixPipeline",
    ),
    pytest.param(
        partial(editing, INPAINT, 9), MASKED, PipelineError, r"denoiser gets \(9, 4, 4\)", id=f"{INPAINT}, 9 channels"
    ),
    pytest.param(
        partial(editing, INPAINT, 4),
        MASKED,
        PipelineError,
        "changes the latents between steps 0 and 1 .*painting a known image into them",
        id=f"{INPAINT}, 4 channels",
    ),
    pytest.param(
        flux_kontext,
        {**zoo.SIZE, **PICTURE, "max_area": 1024, "_auto_resize": False},
        PipelineError,
        r"for each image \(argument 'hidden_states'\), where the scheduler has \(16, 16\): .*an image to edit",
        id="FluxKontextPipeline",
    ),
    pytest.param(lumina, SIZE_64, GuidanceError, "No guidance rule of cfg.*def rule", id="LuminaPipeline"),
    pytest.param(
        cascade_prior,
        {},
        PipelineError,
        "has the components .*prior, scheduler; DDPO trains one named unet or transformer",
        id="StableCascadePriorPipeline",
    ),
    pytest.param(
        marigold, {}, PipelineError, "takes no prompt, and DDPO trains .* It takes: image, ", id="MarigoldDepthPipeline"
    ),
    pytest.param(
        unconditional,
        {},
        PipelineError,
        "takes no prompt, and .* It takes: batch_size, ",
        id="ConsistencyModelPipeline",
    ),
    pytest.param(
        text_to_video,
        {"num_frames": 2},
        PipelineError,
        r"gives its scheduler \(4, 4, 8, 8\) for 2 images; .*one frame \(pipeline_kwargs with num_frames=1",
        id="TextToVideoSDPipeline, two frames",
    ),
    pytest.param(
        wan,
        {"height": 16, "width": 16, "num_frames": 5},
        PipelineError,
        r"made \(2, 5, 3, 16, 16\); .*videos of one frame .*num_frames=1",
        id="WanPipeline, five frames",
        marks=NEEDS_FTFY,
    ),
    pytest.param(
        partial(zoo.stable_diffusion, "StableDiffusionControlNetImg2ImgPipeline", controlnet=None),
        {},
        PipelineError,
        r"failed in the dry run with \w+: .*It was called with prompt=\['a cat', .*set it in pipeline_kwargs",
        id="StableDiffusionControlNetImg2ImgPipeline, no controlnet",
    ),
]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("build", "pipeline_kwargs", "kind", "message"), REFUSED)
def test_it_is_refused_with_a_message_to_go_on(build, pipeline_kwargs, kind, message):
    pipeline = built(build)

    def first_rollout():
        policy = LogProbPipeline(pipeline, 3, 4.0, pipeline_kwargs=pipeline_kwargs)
        policy.sample(["a cat", "a dog"], image_generators([1, 2]))

    with pytest.raises(kind, match=f"(?s){message}"):
        first_rollout()


def test_an_argument_that_the_pipeline_does_not_have(tiny_pipeline):
    with pytest.raises(
        PipelineError, match=r"StableDiffusionPipeline has no argument 'witdh'. It takes: prompt, height"
    ):
        LogProbPipeline(tiny_pipeline(), 3, pipeline_kwargs={"witdh": 64})


class Unguided(diffusers.StableDiffusionPipeline):
    """Takes no scale, like pipelines of distilled models."""

    def __call__(self, prompt, num_inference_steps=3, **options):
        return super().__call__(prompt, num_inference_steps=num_inference_steps, guidance_scale=1.0, **options)


class OneByOne(diffusers.StableDiffusionPipeline):
    """Draws the images of a list one after the other."""

    def __call__(self, prompt, num_inference_steps, guidance_scale, generator, **options):
        options = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, **options}
        made = [
            super(OneByOne, self).__call__(text, generator=own, **options)[0]
            for text, own in zip(prompt, generator, strict=True)
        ]
        return (torch.cat(made),)


class OtherDenoiser(diffusers.StableDiffusionPipeline):
    """Predicts by a method of its denoiser, which is not seen."""

    def __call__(self, prompt, num_inference_steps=3, guidance_scale=1.0, generator=None, **options):
        self.scheduler.set_timesteps(num_inference_steps)
        latents = torch.zeros(len(prompt), 4, 8, 8)
        self.scheduler.step(self.unet.conv_in(latents)[:, :4], self.scheduler.timesteps[0], latents)


class NoSteps(diffusers.StableDiffusionPipeline):
    """Makes images by another pipeline inside."""

    def __call__(self, prompt, num_inference_steps=3, guidance_scale=1.0, generator=None, **options):
        return (torch.zeros(len(prompt), 3, 32, 32),)


def as_kind(kind, tiny_pipeline):
    return load_pipeline(kind(**tiny_pipeline().components, requires_safety_checker=False))


def test_a_pipeline_without_a_guidance_scale(tiny_pipeline):
    pipeline = as_kind(Unguided, tiny_pipeline)
    with pytest.raises(PipelineError, match=r"no argument 'guidance_scale'. .* Leave it out by guidance_scale=None"):
        LogProbPipeline(pipeline, 3)
    policy = LogProbPipeline(pipeline, 3, guidance_scale=None)
    assert policy.findings.guidance.name == "none"
    assert "guidance_scale" not in policy.sampling_kwargs


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            OneByOne,
            r"gives its scheduler \(1, 4, 8, 8\) for 2 images; .* images that are drawn one by one",
        ),
        (OtherDenoiser, r"first step without calling pipeline.unet: another of its components predicts"),
        (NoSteps, r"without calling pipeline.scheduler.step; .*\(Combined\), train the one that denoises"),
    ],
)
def test_pipelines_of_ones_own(tiny_pipeline, kind, message):
    pipeline = as_kind(kind, tiny_pipeline)
    with pytest.raises(PipelineError, match=message):
        LogProbPipeline(pipeline, 3, 1.0)


def test_an_adapter_for_layers_that_there_are_not(tiny_pipeline, tmp_path):
    adapter = LoraConfig(target_modules=["to_queue"])
    report = examine(tiny_pipeline(), config(tmp_path), adapter)
    assert re.search(
        r"No adapter fits UNet2DConditionModel: .*to_queue.*lora_target_modules.* to_q \(.*to_out.0 \(", report.refusal
    )


def test_a_denoiser_whose_attention_has_other_names():
    block = torch.nn.ModuleDict({"query": torch.nn.Linear(1, 1), "out": torch.nn.Sequential(torch.nn.Linear(1, 1))})
    message = r"Sequential has no attention projections .*target_modules.* query \(2 times\), out.0 \(2 times\)\."
    with pytest.raises(ConfigError, match=message):
        default_lora_config(torch.nn.Sequential(block, copy.deepcopy(block)))


def test_layers_are_chosen_where_the_adapter_names_none(tiny_pipeline):
    unet = tiny_pipeline().unet
    completed = complete_lora_config(LoraConfig(r=3), unet)
    assert (completed.r, completed.target_modules) == (3, default_lora_config(unet).target_modules)
    own = LoraConfig(target_modules=["to_q"])
    assert complete_lora_config(own, unet) is own
