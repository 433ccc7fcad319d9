"""`ddpo doctor --tiny`: a pipeline's twin, from its configuration files alone."""

from functools import partial

import pytest
import torch
from support import zoo

from trainer_ext import DDPOConfig
from trainer_ext.cli import main
from trainer_ext.doctor.examine import examine
from trainer_ext.doctor.tiny_copy import DEPTH, shrunk, tiny_copy
from trainer_ext.errors import PipelineError
from trainer_ext.model.loading import load_pipeline
from trainer_ext.policy.runner import find_denoiser

KINDS = [
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
    "SanaPipeline",
]
KINDS += ["QwenImagePipeline", "Lumina2Pipeline", "PixArtSigmaPipeline", "CogView4Pipeline"]


def without_weights(pipeline, folder):
    """Save a pipeline's configurations, tokenizers and no weights."""
    pipeline.save_pretrained(folder)
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    return folder


@pytest.fixture
def config(tmp_path):
    return partial(DDPOConfig, output_dir=str(tmp_path / "run"), num_inference_steps=3, use_cpu=True, disable_tqdm=True)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in zoo.FAMILIES])
def test_the_twin_is_trained_like_the_model(kind, config, tmp_path):
    family = zoo.FAMILIES[kind]
    model = family.build()
    twin = tiny_copy(without_weights(model, tmp_path / "model"))
    assert type(twin) is type(model)
    denoisers = [pipeline.components[find_denoiser(pipeline)] for pipeline in (model, twin)]
    assert not any(
        torch.equal(a, b) for a, b in zip(*(each.parameters() for each in denoisers), strict=True) if a.dim() > 1
    )
    report = examine(twin, config(**family.options)).to_dict()
    assert report["refusal"] is None
    assert report["guidance"][0]["rule"] == family.guidance
    assert report["replay"][0]["same_layout"] == 0
    assert report["gradient"][0]["without"] == ()


def test_it_has_few_layers(tmp_path):
    model = load_pipeline(zoo.stable_diffusion_3())
    deep = type(model.transformer).from_config({**model.transformer.config, "num_layers": 5})
    model.register_modules(transformer=deep)
    twin = tiny_copy(without_weights(model, tmp_path / "model"))
    assert len(deep.transformer_blocks) == 5
    assert len(twin.transformer.transformer_blocks) == DEPTH
    assert twin.transformer.config.attention_head_dim == deep.config.attention_head_dim


def test_configurations_are_shrunk_at_any_depth():
    config = {
        "num_layers": 24,
        "hidden_size": 64,
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 2, 10],
        "text_config": {"num_hidden_layers": 1, "layer_types": ["full"] * 30, "num_heads": None},
    }
    assert shrunk(config) == {
        "num_layers": 2,
        "hidden_size": 64,
        "layers_per_block": 1,
        "transformer_layers_per_block": [1, 1, 1],
        "text_config": {"num_hidden_layers": 1, "layer_types": ["full"] * 2, "num_heads": None},
    }


def test_the_command(tmp_path, capsys):
    folder = without_weights(zoo.FAMILIES["StableDiffusionPipeline"].build(), tmp_path / "model")
    quick = ["--num_inference_steps", "3", "--use_cpu", "true", "--disable_tqdm", "true"]
    assert main(["doctor", str(folder), "--tiny", *quick]) == 0
    assert "can be trained (a tiny copy with few layers and random weights)" in capsys.readouterr().out
    assert main(["doctor", str(folder), *quick]) == 2
    assert "No pipeline could be loaded" in capsys.readouterr().err


def test_what_is_no_pipeline_has_no_twin(tmp_path):
    with pytest.raises(PipelineError, match="No tiny copy of .*FileNotFoundError.*model_index.json"):
        tiny_copy(tmp_path)
    with pytest.raises(PipelineError, match="No configuration of 'no/where'"):
        tiny_copy("no/where")
