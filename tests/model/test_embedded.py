"""The model that ships with the package."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from trainer_ext.model.loading import load_pipeline
from trainer_ext.shipped import embedded_model


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_what_is_loaded_is_what_is_in_the_files(embedded_pipeline, part):
    """Weights under names that a library does not know are replaced by random ones, with no more than a warning."""
    (file,) = (embedded_model() / part).glob("*.safetensors")
    stored = {key.removeprefix("text_model."): value.float() for key, value in load_file(file).items()}
    module = embedded_pipeline.components[part]
    loaded = {
        key.removeprefix("text_model."): value
        for key, value in module.state_dict().items()
        if "position_ids" not in key
    }
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(value, stored[key]) for key, value in loaded.items())


def test_prompts_are_told_apart(embedded_pipeline):
    ids = embedded_pipeline.tokenizer(["a cat", "a dog"], padding="max_length", max_length=16).input_ids
    assert [row[:4] for row in ids] == [[648, 158, 373, 649], [648, 158, 424, 649]]


def test_it_is_small():
    size = sum(file.stat().st_size for file in embedded_model().rglob("*") if file.is_file())
    assert size < 15e6


def test_half_precision(embedded_pipeline):
    pipeline = load_pipeline("embedded", torch.bfloat16)
    assert {next(pipeline.components[name].parameters()).dtype for name in ("unet", "vae", "text_encoder")} == {
        torch.bfloat16
    }


def test_stock_diffusers_needs_no_precision():
    """Files in half precision: diffusers loads its parts in float32, transformers its own in what the config says."""
    pipeline = StableDiffusionPipeline.from_pretrained(embedded_model())
    pipeline.set_progress_bar_config(disable=True)
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}
    assert pipeline("a cat", num_inference_steps=1, output_type="np").images.shape == (1, 64, 64, 3)
