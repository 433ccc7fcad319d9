"""A pipeline is looked at before anything is done with it: states that would train wrongly are refused with the way out."""

import copy

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from support import trainers

from ddpo_plugins.errors import DDPOError
from trainer_ext.doctor.examine import examine
from trainer_ext.errors import PipelineError
from trainer_ext.file_names import LORA_FILE
from trainer_ext.model.build import build_policy

QUERIES = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
CPU = torch.device("cpu")


def style(pipeline):
    pipeline.unet.add_adapter(QUERIES)


def fused_style(pipeline):
    style(pipeline)
    pipeline.fuse_lora()


def style_that_is_off(pipeline):
    style(pipeline)
    pipeline.disable_lora()


def in_peft(pipeline):
    pipeline.unet = get_peft_model(pipeline.unet, QUERIES)


def compiled(pipeline):
    pipeline.unet = torch.compile(pipeline.unet)


def compiled_in_place(pipeline):
    pipeline.unet.mid_block.compile()


def in_data_parallel(pipeline):
    pipeline.unet = torch.nn.DataParallel(pipeline.unet)


def in_bfloat16(pipeline):
    pipeline.unet.to(torch.bfloat16)


def layerwise_casting(pipeline):
    pipeline.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def float8(pipeline):
    pipeline.unet.conv_in.weight.data = pipeline.unet.conv_in.weight.data.to(torch.float8_e4m3fn)


def sequential_offload(pipeline):
    pipeline.enable_sequential_cpu_offload(device="cpu")


def model_offload(pipeline):
    pipeline.enable_model_cpu_offload(device="cpu")


def group_offload(pipeline):
    pipeline.unet.enable_group_offload(onload_device=CPU, offload_type="leaf_level")


def style_of_the_text_encoder(pipeline):
    inject_adapter_in_model(LoraConfig(target_modules=["q_proj"]), pipeline.text_encoder)


def fused_projections(pipeline):
    pipeline.unet.fuse_qkv_projections()


def meta_weights(pipeline):
    pipeline.unet.to("meta")


class TwoDenoisers(StableDiffusionPipeline):
    """As Wan 2.2: one for the noisy steps, one for the others."""

    def __init__(self, unet_2, vae, text_encoder, tokenizer, unet, scheduler):
        DiffusionPipeline.__init__(self)
        parts = {"vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "scheduler": scheduler}
        self.register_modules(**parts, unet=unet, unet_2=unet_2)


def two_denoisers(pipeline):
    parts = {name: part for name, part in pipeline.components.items() if part is not None}
    return TwoDenoisers(copy.deepcopy(pipeline.unet), **parts)


def device_map(pipeline):
    pipeline.hf_device_map = {"unet": "cpu"}


def inference_weights(pipeline):
    with torch.inference_mode():
        pipeline.unet.conv_in.weight = torch.nn.Parameter(pipeline.unet.conv_in.weight.clone())


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (style, {}, r"has a loaded LoRA.*pipeline.fuse_lora\(\) and pipeline.unload_lora_weights\(\) to train on top"),
        (style, {"full_finetuning": True}, "has a loaded LoRA"),
        (style_that_is_off, {}, "has a loaded LoRA"),
        (fused_style, {}, r"has a fused LoRA whose layers are still there. Call pipeline.unload_lora_weights\(\)"),
        (style_of_the_text_encoder, {}, "pipeline.text_encoder has a loaded LoRA"),
        (fused_projections, {}, r"fused attention projections.*pipeline.unet.unfuse_qkv_projections\(\)"),
        (in_peft, {}, r"is a PeftModel of PEFT.*pipeline.unet = pipeline.unet.unload\(\) drops the adapter"),
        (compiled, {}, r"is compiled.*pipeline.unet = pipeline.unet._orig_mod.*torch_compile=True"),
        (compiled_in_place, {}, r"is compiled.*load it again without compile\(\)"),
        (in_data_parallel, {}, "is a DataParallel; .* pipeline.unet = pipeline.unet.module"),
        (in_bfloat16, {"full_finetuning": True}, r"in bfloat16.*pipeline.to\(torch.float32\), and set bf16=True"),
        (layerwise_casting, {}, "has the hook 'layerwise_casting'"),
        (float8, {}, "has weights in float32, float8_e4m3fn|has weights in float8_e4m3fn, float32"),
        (sequential_offload, {}, r"is offloaded.*pipeline.remove_all_hooks\(\)"),
        (model_offload, {}, "is offloaded"),
        (group_offload, {}, "has the hook 'group_offloading'"),
        (meta_weights, {}, "has weights on the meta device"),
        (two_denoisers, {}, r"has several denoisers \(unet, unet_2\)"),
        (device_map, {}, r"has a device_map.*pipeline.reset_device_map\(\)"),
        (inference_weights, {}, r"were made inside torch.inference_mode\(\)"),
    ],
)
def test_states_that_are_refused(make_trainer, tiny_pipeline, change, options, message):
    pipeline = tiny_pipeline()
    pipeline = change(pipeline) or pipeline
    with pytest.raises(PipelineError, match=message):
        make_trainer(model=pipeline, **options)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_gradients_that_are_off_are_found_before_anything_else(make_trainer, guard):
    with guard(), pytest.raises(PipelineError, match=r"Gradients are off .*torch.set_grad_enabled\(True\)"):
        make_trainer()
    trainer = make_trainer()
    with guard(), pytest.raises(PipelineError, match="Gradients are off"):
        trainer.train()


@pytest.mark.parametrize(
    "model", [lambda pipeline: pipeline.unet, lambda pipeline: StableDiffusionPipeline, lambda pipeline: None]
)
def test_what_is_no_pipeline(make_trainer, tiny_pipeline, tmp_path, model):
    with pytest.raises(PipelineError, match="The model is .*; give a whole pipeline"):
        trainers.make_trainer(model(tiny_pipeline()), tmp_path)


def fuse_and_unload(pipeline):
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()


WAYS_OUT = {
    style: fuse_and_unload,
    fused_projections: lambda pipeline: pipeline.unet.unfuse_qkv_projections(),
    sequential_offload: lambda pipeline: pipeline.remove_all_hooks(),
    model_offload: lambda pipeline: pipeline.remove_all_hooks(),
}


@pytest.mark.parametrize(
    "change", [style, *(pytest.param(change, marks=pytest.mark.full) for change in list(WAYS_OUT)[1:])]
)
def test_the_way_out_is_one(make_trainer, tiny_pipeline, change):
    """The run begins from the picture that the user's pipeline draws, and saves an adapter for that pipeline."""
    pipeline = tiny_pipeline()
    expected = picture(pipeline)
    change(pipeline)
    expected = picture(pipeline) if change is style else expected
    WAYS_OUT[change](pipeline)
    trainer = make_trainer(model=pipeline)
    assert (picture(pipeline) - expected).abs().max() < 1e-4
    trainer.train()


def picture(pipeline):
    generator = torch.Generator().manual_seed(0)
    return pipeline(["a cat"], num_inference_steps=2, generator=generator, output_type="pt")[0]


def learn(trainer):
    """Change the adapter as a long training would."""
    with torch.no_grad():
        for name, value in trainer.model.named_parameters():
            if "lora_B" in name:
                value.normal_()


# ---- a second trainer ----


def test_a_second_trainer_is_refused_while_the_first_one_s_adapter_is_there(make_trainer, tiny_pipeline):
    pipeline = tiny_pipeline()
    first = make_trainer("first", model=pipeline)
    first.train()
    with pytest.raises(PipelineError, match=r"trained adapter of an earlier DDPOTrainer. Save it first \(save_model"):
        make_trainer("second", model=pipeline)
    with pytest.raises(PipelineError, match="trained adapter of an earlier DDPOTrainer"):
        make_trainer("second", model=pipeline, full_finetuning=True)
    first.save_model()
    del first
    with pytest.raises(PipelineError, match="trained adapter of an earlier DDPOTrainer"):
        make_trainer("third", model=pipeline, peft_config=LoraConfig(target_modules=["to_k"]))


@pytest.mark.parametrize("way_out", ["unload", pytest.param(fuse_and_unload, marks=pytest.mark.full)])
def test_the_first_trainer_cannot_overwrite_its_result_after_the_second_began(make_trainer, tiny_pipeline, way_out):
    pipeline = tiny_pipeline()
    base = picture(pipeline)
    first = make_trainer("first", model=pipeline)
    first.save_model()
    file = first.args.folder / LORA_FILE
    saved, drawn = file.read_bytes(), None
    learn(first)
    drawn = picture(pipeline)
    pipeline.unload_lora_weights() if way_out == "unload" else way_out(pipeline)
    second = make_trainer("second", model=pipeline)
    expected = base if way_out == "unload" else drawn
    assert (picture(pipeline) - expected).abs().max() < 1e-4
    for act in (first.save_model, lambda: first.evaluate(trainers.CAT_AND_DOG)):
        with pytest.raises(PipelineError, match="no longer holds what this trainer trained"):
            act()
    assert file.read_bytes() == saved
    second.train()
    second.save_model()


def test_an_adapter_that_never_learned_is_taken_off(make_trainer, tiny_pipeline):
    """A cell of a notebook that is run twice before training, or whose first run failed after the adapter was added."""
    pipeline = tiny_pipeline()
    first = make_trainer("first", model=pipeline, peft_config=LoraConfig(r=2, target_modules=["to_k"]))
    with pytest.raises(DDPOError):
        make_trainer("failed", model=pipeline, algorithm="ddpo_sf", beta=-1.0)
    second = make_trainer("second", model=pipeline)
    second.train()
    second.save_model()
    reloaded = tiny_pipeline()
    reloaded.unet.load_state_dict(base_state(pipeline))
    reloaded.load_lora_weights(second.args.folder)
    assert torch.equal(picture(reloaded), picture(pipeline))
    with pytest.raises(PipelineError, match="no longer holds"):
        first.train()


def base_state(pipeline):
    return {
        name.replace(".base_layer", ""): value
        for name, value in pipeline.unet.state_dict().items()
        if "lora_" not in name
    }


def test_full_finetuning_twice(make_trainer, tiny_pipeline):
    """The second begins from what the first learned, and the first cannot save the second's weights as its own."""
    pipeline = tiny_pipeline()
    first = make_trainer("first", model=pipeline, full_finetuning=True)
    make_trainer("second", model=pipeline, full_finetuning=True).train()
    with pytest.raises(PipelineError, match="another DDPOTrainer has the pipeline"):
        first.save_model()
    assert not (first.args.folder / "model_index.json").exists()


@pytest.mark.parametrize("change", ["fuse_lora", "disable_lora", "second"])
def test_an_adapter_that_is_not_in_place_is_not_trained(make_trainer, tiny_pipeline, change):
    trainer = make_trainer(model=tiny_pipeline())
    pipeline = trainer.policy.pipeline
    if change == "second":
        with pytest.warns(UserWarning, match="multiple adapters"):
            pipeline.unet.add_adapter(QUERIES, "other")
    else:
        getattr(pipeline, change)()
    with pytest.raises(PipelineError, match="is fused, switched off, or not the only one"):
        trainer.train()


# ---- precision, and what the adapter changes ----


def test_what_is_trained_is_in_float32(make_trainer, tiny_pipeline):
    pipeline = tiny_pipeline()
    for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        part.to(torch.bfloat16)
    trainer = make_trainer(model=pipeline)
    assert {value.dtype for value in trainers.trained_weights(trainer.model).values()} == {torch.float32}
    trainer.train()


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_the_adapter_changes_no_bit_of_an_image(make_trainer, tiny_pipeline, options):
    pipeline = tiny_pipeline()
    before = picture(pipeline)
    make_trainer(model=pipeline, peft_config=LoraConfig(r=2, target_modules=["to_q", "to_v"], **options))
    assert torch.equal(picture(pipeline), before)


@pytest.mark.parametrize("init", [False, "orthogonal"])
def test_an_adapter_that_changes_images_is_refused(make_trainer, init):
    peft_config = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=init)
    with pytest.raises(
        PipelineError, match=r"changes what the denoiser predicts before any training \(by .*'gaussian'"
    ):
        make_trainer(peft_config=peft_config)


# ---- the backward pass ----


class NoBackward(torch.autograd.Function):
    """As a kernel that was written for inference."""

    @staticmethod
    def forward(context, values):
        return values.clone()

    @staticmethod
    def backward(context, gradient):
        raise NotImplementedError("no backward kernel")


def detached(module, given, output):
    return output.detach().requires_grad_(torch.is_grad_enabled())


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (lambda module, given, output: NoBackward.apply(output), "backward pass .* failed: no backward kernel"),
        (detached, "No gradient reaches the trained weights"),
    ],
)
def test_what_fails_only_in_the_backward_pass_fails_before_any_reward(make_trainer, tiny_pipeline, hook, message):
    asked = []

    def reward(images, prompts, **columns):
        asked.append(prompts)
        return [0.0] * len(prompts)

    pipeline = tiny_pipeline()
    pipeline.unet.conv_out.register_forward_hook(hook)
    with pytest.raises(PipelineError, match=message):
        make_trainer(model=pipeline, reward=reward, overlap_rewards=False).train()
    assert not asked


# ---- the doctor ----


def test_the_doctor_refuses_and_gives_back(tiny_pipeline, tmp_path):
    args = trainers.DDPOConfig(output_dir=str(tmp_path), **trainers.TINY)
    pipeline = tiny_pipeline()
    before = picture(pipeline)
    assert examine(pipeline, args).refusal is None
    assert torch.equal(picture(pipeline), before)
    assert not any(isinstance(layer, BaseTunerLayer) for layer in pipeline.unet.modules())
    style(pipeline)
    assert "has a loaded LoRA" in examine(pipeline, args).refusal
    with pytest.raises(PipelineError, match="has a loaded LoRA"):
        build_policy(pipeline, args)
