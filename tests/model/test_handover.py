"""A pipeline that the user handed over is given back as it came, with the trained adapter in it."""

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from peft import LoraConfig
from support.trainers import CAT_AND_DOG, brightness
from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

from trainer_ext import DDPOConfig

RECOMPUTE = "activation_checkpointing" if hasattr(DDPOConfig, "activation_checkpointing") else "gradient_checkpointing"


@pytest.fixture
def pipeline(tiny_pipeline):
    """With a safety checker, settings of the progress bar, and states that training needs otherwise."""
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=CLIPTextConfig(**small).to_dict(),
        vision_config=CLIPVisionConfig(**small, image_size=32, patch_size=16).to_dict(),
        projection_dim=8,
    )
    pipeline = tiny_pipeline()
    pipeline.register_modules(safety_checker=StableDiffusionSafetyChecker(config))
    pipeline.set_progress_bar_config(desc="mine", leave=False)
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        part.requires_grad_(True)
    pipeline.vae.encoder.requires_grad_(False)
    pipeline.text_encoder.train()
    pipeline.text_encoder.config.attention_dropout = 0.5
    return pipeline


def state(pipeline):
    """What the user may have set, by name."""
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    modules = {(name, inner): module for name, part in parts.items() for inner, module in part.named_modules()}
    weights = {
        (name, inner): value for name in ("vae", "text_encoder") for inner, value in parts[name].named_parameters()
    }
    return {
        "components": {name: id(part) for name, part in pipeline.components.items()},
        "config": dict(pipeline.config),
        "progress bar": dict(pipeline._progress_bar_config),
        "trainable": {name: value.requires_grad for name, value in weights.items()},
        "training": {name: module.training for name, module in modules.items() if "lora_" not in name[1]},
        "recomputing": pipeline.unet.is_gradient_checkpointing,
        "device": pipeline.device,
        "dtype": pipeline.dtype,
    }


def without_layers(state):
    """PEFT puts the layer that was there into its own one."""
    training = {(part, name.replace(".base_layer", "")): value for (part, name), value in state["training"].items()}
    return {**state, "training": training}


def fails(images, prompts, **columns):
    raise OSError("no such server")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, None),
        pytest.param({RECOMPUTE: True}, None, marks=pytest.mark.full),
        pytest.param({"full_finetuning": True}, None, marks=pytest.mark.full),
        ({"reward": fails}, "no such server"),
    ],
)
def test_after_training(make_trainer, pipeline, options, error):
    before = without_layers(state(pipeline))
    trainer = make_trainer(model=pipeline, **options)
    assert pipeline.safety_checker is None
    if error is None:
        trainer.train()
    else:
        with pytest.raises(Exception, match=error):
            trainer.train()
    after = without_layers(state(pipeline))
    for name, value in before.items():
        assert after[name] == value, name


def test_what_is_not_trained_stays_as_it_came(make_trainer, pipeline):
    """PyTorch multiplies by frozen weights in another order: pictures would not be the stock pipeline's."""
    before = state(pipeline)["trainable"]
    trainer = make_trainer(model=pipeline)
    assert state(pipeline)["trainable"] == before
    assert all("lora_" in name for name, value in trainer.model.named_parameters() if value.requires_grad)


def test_the_trained_adapter_is_in_the_pipeline_and_active(make_trainer, pipeline, tiny_pipeline):
    trainer = make_trainer(model=pipeline, learning_rate=0.1)
    trainer.train()
    trained = pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    assert trained.active_adapters == ["default"]
    assert not trained.disable_adapters
    assert trained.lora_B["default"].weight.any()
    assert trained.lora_B["default"].weight.requires_grad


def test_training_goes_on_and_evaluation_is_not_censored(make_trainer, pipeline):
    """A pipeline that was given back is made ready again, and given back again."""
    seen = []

    def reward(images, prompts, **columns):
        seen.append(pipeline.safety_checker)
        return brightness(images, prompts)

    before = without_layers(state(pipeline))
    trainer = make_trainer(model=pipeline, reward=reward, eval_dataset=CAT_AND_DOG, save_strategy="epoch")
    for act in (trainer.evaluate, trainer.train, trainer.evaluate, lambda: trainer.train(resume_from_checkpoint=True)):
        act()
        assert without_layers(state(pipeline)) == before
    assert seen
    assert set(seen) == {None}


def test_a_trainer_that_never_trained_changes_nothing_for_the_next(make_trainer, pipeline):
    before = without_layers(state(pipeline))
    make_trainer("first", model=pipeline)
    make_trainer("second", model=pipeline).train()
    assert without_layers(state(pipeline)) == before


@pytest.mark.parametrize(
    "options",
    [
        {"pipeline_kwargs": {"hight": 64}},
        {"peft_config": LoraConfig(target_modules=["to_x"])},
        {"peft_config": LoraConfig(target_modules=["to_q"], init_lora_weights=False)},
    ],
)
def test_a_trainer_that_cannot_be_made(make_trainer, pipeline, options):
    before = state(pipeline)
    with pytest.raises(ValueError):
        make_trainer(model=pipeline, **options)
    assert state(pipeline) == before
    make_trainer(model=pipeline)
