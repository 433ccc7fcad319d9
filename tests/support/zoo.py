"""Tiny pipelines with random weights, one for each family, built from configurations: no network, no files but our own."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import diffusers
import torch
import transformers
from diffusers import AutoencoderTiny, DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from packaging.version import Version
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedTokenizerFast

from trainer_ext.doctor.tiny_copy import randomise
from trainer_ext.model.loading import DTYPE_ARGUMENT, load_pipeline
from trainer_ext.policy.runner import find_denoiser
from trainer_ext.shipped import embedded_model

SIZE = {"height": 16, "width": 16}
WIDTH = 16  #: of what text encoders return


# Parts


def vae(**options):
    """Of the embedded model: 4 x 4 latents of 4 channels are 16 x 16 images."""
    return AutoencoderTiny.from_pretrained(embedded_model() / "vae", **{DTYPE_ARGUMENT: torch.float32}, **options)


def vae_of_large_latents():
    """For random predictions of noise, which leave latents that are larger than an image's: all black or white."""
    return vae(scaling_factor=4.0)


def vae_of_eight():
    """4 x 4 latents are 32 x 32 images: some pipelines know no other factor."""
    return randomise(
        diffusers.AutoencoderKL(
            block_out_channels=(8,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            norm_num_groups=2,
        )
    )


def ddim(**options):
    options = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, **options}
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **options)


def clip_tokenizer():
    return CLIPTokenizer.from_pretrained(embedded_model() / "tokenizer")


def byte_tokenizer():
    """A token for each byte, with a chat template that is the content."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {token: index for index, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    named = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        padding_side="right",
        chat_template=template,
        model_input_names=["input_ids", "attention_mask"],
        **named,
    )


def clip_text(kind, max_length=16):
    config = transformers.CLIPTextConfig(
        vocab_size=922,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=max_length,
        projection_dim=WIDTH,
        bos_token_id=920,
        eos_token_id=921,
        pad_token_id=921,
    )
    return kind(config)


def t5(config=transformers.T5Config, model=transformers.T5EncoderModel):
    return model(config(vocab_size=300, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0))


def decoder_options(**options):
    """Of the language models that encode text."""
    return {
        "vocab_size": 300,
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **options,
    }


def gemma2():
    return transformers.Gemma2Model(transformers.Gemma2Config(**decoder_options()))


def qwen2_5_vl():
    options = decoder_options(rope_scaling={"type": "mrope", "mrope_section": [2, 1, 1]})
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}
    config = transformers.Qwen2_5_VLConfig(text_config=options, vision_config=vision)
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def qwen3(model, **options):
    return model(transformers.Qwen3Config(**decoder_options(**options)))


def unet(**options):
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 4,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 4,
            "norm_num_groups": 4,
            "cross_attention_dim": WIDTH,
            **options,
        }
    )


def cast(model, dtype):
    """As `from_pretrained` does, which keeps some modules in float32."""
    kept = {part for owner in model.modules() for part in getattr(owner, "_keep_in_fp32_modules", None) or ()}
    for name, module in model.named_modules():
        if not kept & set(name.split(".")):
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(dtype)


def in_bfloat16(pipeline):
    """Return it as if it had been loaded so."""
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            cast(component, torch.bfloat16)
    return pipeline


# Pipelines


def stable_diffusion(kind="StableDiffusionPipeline", prediction_type="epsilon", **parts):
    return getattr(diffusers, kind)(
        tokenizer=clip_tokenizer(),
        text_encoder=clip_text(CLIPTextModel),
        vae=vae_of_large_latents() if prediction_type == "epsilon" else vae(),
        unet=unet(),
        scheduler=ddim(prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )


def stable_diffusion_controlnet():
    controlnet = diffusers.ControlNetModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        conditioning_embedding_out_channels=(4, 4, 8),
    )
    return stable_diffusion("StableDiffusionControlNetPipeline", controlnet=randomise(controlnet))


def stable_diffusion_xl(kind="StableDiffusionXLPipeline"):
    return getattr(diffusers, kind)(
        vae=vae_of_large_latents(),
        text_encoder=clip_text(CLIPTextModel),
        text_encoder_2=clip_text(CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        scheduler=ddim(),
        add_watermarker=False,
    )


def stable_diffusion_3(kind="StableDiffusion3Pipeline"):
    return getattr(diffusers, kind)(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=4,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=2 * WIDTH,
            pos_embed_max_size=8,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=clip_text(CLIPTextModelWithProjection),
        text_encoder_2=clip_text(CLIPTextModelWithProjection),
        text_encoder_3=None,
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=None,
    )


def flux():
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae(),
        text_encoder=clip_text(CLIPTextModel),
        text_encoder_2=t5(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=byte_tokenizer(),
    )


def flux2_klein():
    return diffusers.Flux2KleinPipeline(
        transformer=diffusers.Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * WIDTH,
            timestep_guidance_channels=16,
            guidance_embeds=False,
            axes_dims_rope=(4, 4, 4, 4),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=randomise(
            diffusers.AutoencoderKLFlux2(
                block_out_channels=(8, 8, 8),
                down_block_types=("DownEncoderBlock2D",) * 3,
                up_block_types=("UpDecoderBlock2D",) * 3,
                layers_per_block=1,
                latent_channels=4,
                norm_num_groups=2,
            )
        ),
        text_encoder=qwen3(transformers.Qwen3ForCausalLM, num_hidden_layers=3),
        tokenizer=byte_tokenizer(),
    )


def pixart(kind):
    return getattr(diffusers, kind)(
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            cross_attention_dim=16,
            caption_channels=WIDTH,
        ),
        scheduler=ddim(),
        vae=vae(),
        text_encoder=t5(),
        tokenizer=byte_tokenizer(),
    )


def sana():
    return diffusers.SanaPipeline(
        transformer=diffusers.SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=1,
            attention_head_dim=32,  # its attention divides by a sum that is near 0 in a small head
            num_cross_attention_heads=2,
            cross_attention_head_dim=16,
            cross_attention_dim=32,
            caption_channels=WIDTH,
            sample_size=4,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        vae=vae(),
        text_encoder=gemma2(),
        tokenizer=byte_tokenizer(),
    )


def qwen_image():
    return diffusers.QwenImagePipeline(
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=randomise(
            diffusers.AutoencoderKLQwenImage(
                base_dim=8,
                z_dim=4,
                dim_mult=[1, 2, 2],
                num_res_blocks=1,
                temperal_downsample=[False, True],
                latents_mean=[0.0] * 4,
                latents_std=[1.0] * 4,
            )
        ),
        text_encoder=qwen2_5_vl(),
        tokenizer=byte_tokenizer(),
    )


def z_image():
    return diffusers.ZImagePipeline(
        transformer=diffusers.ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=WIDTH,
            axes_dims=[8, 4, 4],
            axes_lens=[256, 32, 32],
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=qwen3(transformers.Qwen3Model),
        tokenizer=byte_tokenizer(),
    )


def lumina2():
    return diffusers.Lumina2Pipeline(
        transformer=diffusers.Lumina2Transformer2DModel(
            sample_size=4,
            in_channels=4,
            hidden_size=24,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=2,
            axes_dim_rope=(4, 4, 4),
            axes_lens=(300, 64, 64),
            cap_feat_dim=WIDTH,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae(),
        text_encoder=gemma2(),
        tokenizer=byte_tokenizer(),
    )


def cogview4():
    return diffusers.CogView4Pipeline(
        transformer=diffusers.CogView4Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=WIDTH,
            time_embed_dim=8,
            condition_dim=4,
            rope_axes_dim=(16, 16),
            sample_size=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"
        ),
        vae=vae(),
        text_encoder=transformers.GlmModel(transformers.GlmConfig(**decoder_options())),
        tokenizer=byte_tokenizer(),
    )


def aura_flow():
    return diffusers.AuraFlowPipeline(
        transformer=diffusers.AuraFlowTransformer2DModel(
            sample_size=4,
            in_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            caption_projection_dim=16,
            pos_embed_max_size=16,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        vae=vae(),
        text_encoder=t5(transformers.UMT5Config, transformers.UMT5EncoderModel),
        tokenizer=byte_tokenizer(),
    )


def chroma():
    return diffusers.ChromaPipeline(
        transformer=diffusers.ChromaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            approximator_num_channels=8,
            approximator_hidden_dim=16,
            approximator_layers=1,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=t5(),
        tokenizer=byte_tokenizer(),
    )


def hunyuan_dit():
    bert = transformers.BertConfig(
        vocab_size=300,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return diffusers.HunyuanDiTPipeline(
        transformer=diffusers.HunyuanDiT2DModel(
            sample_size=4,
            in_channels=4,
            patch_size=2,
            num_layers=4,
            attention_head_dim=8,
            num_attention_heads=2,
            hidden_size=16,
            cross_attention_dim=WIDTH,
            cross_attention_dim_t5=WIDTH,
            pooled_projection_dim=8,
        ),
        scheduler=ddim(prediction_type="v_prediction"),
        vae=vae_of_eight(),
        text_encoder=transformers.BertModel(bert),
        tokenizer=byte_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=byte_tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def kandinsky5():
    pipeline = diffusers.Kandinsky5T2IPipeline(
        transformer=diffusers.Kandinsky5Transformer3DModel(
            in_text_dim=WIDTH,
            in_text_dim2=WIDTH,
            time_dim=16,
            model_dim=32,
            ff_dim=32,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=qwen2_5_vl(),
        tokenizer=byte_tokenizer(),
        text_encoder_2=clip_text(CLIPTextModel, 77),
        tokenizer_2=clip_tokenizer(),
    )
    pipeline.resolutions = [(32, 32)]  # it knows only those of the real model
    return pipeline


@dataclass(frozen=True)
class Family:
    """
    Parameters:
        name (`str`):
            Of the pipeline's class, and what sets it apart.
        make (`Callable`):
            Returns the pipeline, as its parts start.
        guidance (`str`):
            The rule that must be found.
        options (`dict`):
            For the policy.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float64`):
            In which gradients are checked.
        differentiable (`str`, *optional*):
            Part of the names of the parameters whose gradients can be checked; all by default.
        learning (`tuple[int, int, float]`, *optional*):
            Images of a rollout, denoising steps, and length of an update in the test that three updates raise the reward.
        above (`str`):
            Version of diffusers with which it cannot be replayed.
    """

    name: str
    make: Callable[[], DiffusionPipeline]
    guidance: str = "cfg"
    options: dict = field(default_factory=dict)
    dtype: torch.dtype = torch.float64
    differentiable: str = ""
    learning: tuple[int, int, float] = (64, 3, 0.4)
    above: str = "0"

    @property
    def kind(self) -> str:
        """Name of the pipeline's class."""
        return self.name.split(",")[0]

    def build(self):
        """Return the pipeline with weights that make a policy."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".FluxPosEmbed. is deprecated", FutureWarning)  # of Chroma's own model
            pipeline = self.make()
        randomise(pipeline.components[find_denoiser(pipeline)])
        return load_pipeline(pipeline)


def options(guidance_scale=4.0, **pipeline_kwargs):
    return {"guidance_scale": guidance_scale, "pipeline_kwargs": pipeline_kwargs}


# DDIM's few steps have little noise; to see through that of the first latents takes more images.
OF_DDIM = (256, 5, 0.8)
LONGER = (128, 5, 1.0)
PICTURE = Image.linear_gradient("L").convert("RGB").resize((16, 16))
SHORT = {"max_sequence_length": 24}
UNBINNED = {**SIZE, **SHORT, "use_resolution_binning": False}

KNOWN = (
    Family("StableDiffusionPipeline", stable_diffusion, options=options(), learning=OF_DDIM),
    Family(
        "StableDiffusionPipeline, rescaled",
        stable_diffusion,
        "cfg_rescaled",
        options(guidance_rescale=0.7),
        learning=OF_DDIM,
    ),
    Family(
        "StableDiffusionPipeline, v_prediction",
        partial(stable_diffusion, prediction_type="v_prediction"),
        options=options(),
        learning=OF_DDIM,
    ),
    Family(
        "StableDiffusionImg2ImgPipeline",
        partial(stable_diffusion, "StableDiffusionImg2ImgPipeline"),
        options=options(image=PICTURE, strength=0.75),
        learning=(512, 5, 0.8),
    ),
    Family("StableDiffusionXLPipeline", stable_diffusion_xl, options=options(), learning=OF_DDIM),
    Family(
        "StableDiffusionXLImg2ImgPipeline",
        partial(stable_diffusion_xl, "StableDiffusionXLImg2ImgPipeline"),
        options=options(image=PICTURE, strength=0.75),
        learning=OF_DDIM,
    ),
    Family("StableDiffusion3Pipeline", stable_diffusion_3, options=options()),
    Family(
        "StableDiffusion3Img2ImgPipeline",
        partial(stable_diffusion_3, "StableDiffusion3Img2ImgPipeline"),
        options=options(image=PICTURE, strength=0.75, **SIZE),
        learning=LONGER,
    ),
    Family("FluxPipeline", flux, "none", options(3.5, **SIZE, **SHORT)),
    Family(
        "FluxPipeline, true guidance",
        flux,
        "cfg",
        options(3.5, **SIZE, **SHORT, true_cfg_scale=4.0, negative_prompt=""),
    ),
    Family(
        "Flux2KleinPipeline",
        flux2_klein,
        options=options(**SIZE, **SHORT, text_encoder_out_layers=(1, 2, 3)),
        learning=LONGER,
    ),
    Family(
        "PixArtAlphaPipeline",
        partial(pixart, "PixArtAlphaPipeline"),
        options=options(**UNBINNED, clean_caption=False),
        learning=OF_DDIM,
    ),
    Family(
        "PixArtSigmaPipeline",
        partial(pixart, "PixArtSigmaPipeline"),
        options=options(**UNBINNED, clean_caption=False),
        learning=OF_DDIM,
    ),
    Family(
        "SanaPipeline", sana, options=options(**{**UNBINNED, "height": 32, "width": 32}, complex_human_instruction=None)
    ),
    Family(
        "QwenImagePipeline",
        qwen_image,
        "cfg_renormed",
        options(None, **SIZE, true_cfg_scale=4.0, negative_prompt=" "),
        learning=LONGER,
        above="0.35.2",  # there it is given the lengths of the batch's prompts, which do not fit a batch of other rows
    ),
    Family("ZImagePipeline", z_image, "cfg_from_cond", options(**SIZE)),
    Family(
        "Lumina2Pipeline",
        lumina2,
        "cfg_renormed",
        options(**SIZE, max_sequence_length=48, system_prompt="Paint"),
        learning=LONGER,
    ),
    Family("CogView4Pipeline", cogview4, options=options(**SIZE), learning=LONGER),
    Family("AuraFlowPipeline", aura_flow, options=options(**SIZE, **SHORT), learning=LONGER),
    Family("ChromaPipeline", chroma, options=options(**SIZE, **SHORT)),
    Family(
        "HunyuanDiTPipeline",
        hunyuan_dit,
        options=options(height=32, width=32, use_resolution_binning=False),
        learning=(256, 5, 0.4),
    ),
    Family(  # it embeds times in float32, and rounds turned queries and keys to bfloat16, whatever it is given
        "Kandinsky5T2IPipeline",
        kandinsky5,
        options=options(height=32, width=32),
        dtype=torch.float32,
        differentiable="cross_attention",
    ),
)


def solved_by(scheduler, make):
    """Build a pipeline, and give it another scheduler with the same noise."""
    pipeline = make()
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    return pipeline


#: With schedulers of distilled models, for which neither DDIM nor Euler's method can stand in.
OF_FEW_STEPS = {
    family.name: family
    for family in (
        Family(
            "StableDiffusionPipeline, LCM",
            partial(solved_by, "LCMScheduler", partial(stable_diffusion, prediction_type="v_prediction")),
            options=options(),
            learning=OF_DDIM,
        ),
        Family(
            "StableDiffusionPipeline, TCD",
            partial(solved_by, "TCDScheduler", partial(stable_diffusion, prediction_type="v_prediction")),
            options=options(),
            learning=OF_DDIM,
        ),
        Family(
            "FluxPipeline, LCM",
            partial(solved_by, "FlowMatchLCMScheduler", flux),
            "none",
            options(3.5, **SIZE, **SHORT),
        ),
    )
}

#: Those that the installed diffusers has.
FAMILIES = {
    family.name: family
    for family in KNOWN
    if hasattr(diffusers, family.kind) and Version(diffusers.__version__) > Version(family.above)
}
