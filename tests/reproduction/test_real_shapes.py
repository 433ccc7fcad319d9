"""The pipelines that people use, with random weights at reduced size, through the whole kit: they need not learn anything."""

import json

import jsonschema
import pytest
import random_pipeline
import torch
from diffusers import StableDiffusion3Pipeline
from support import zoo
from support.trainers import as_flags
from transformers import T5Config, T5EncoderModel

from trainer_ext.cli import main
from trainer_ext.reproduction.document import disagreements, schema

SMALL = {
    "num_train_epochs": 1,
    "num_images_per_rollout": 4,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "rollout_batch_size": 2,
    "num_inference_steps": 3,
    "num_sample_images": 2,
    "eval_reward_funcs": "jpeg_incompressibility",
    "eval_prompts": "unseen_animals",
    "eval_steps": 1.0,
    "save_steps": 1.0,
    "disable_tqdm": "true",
    "use_cpu": "true",
}
FAMILIES = ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline"]


def complete(pipeline):
    """Stable Diffusion 3 with its third text encoder, without which a folder does not load by itself."""
    if isinstance(pipeline, StableDiffusion3Pipeline):
        size = {"d_model": 2 * zoo.WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
        encoder = T5EncoderModel(T5Config(vocab_size=300, **size))
        pipeline.register_modules(text_encoder_3=encoder, tokenizer_3=zoo.byte_tokenizer())
    return pipeline


@pytest.mark.full
@pytest.mark.parametrize("name", FAMILIES)
def test_the_whole_kit(name, tmp_path):
    family = zoo.FAMILIES[name]
    complete(family.build()).save_pretrained(tmp_path / "model")
    options = {**SMALL, "model": tmp_path / "model", "output_dir": tmp_path / "run"}
    options |= {key: json.dumps(value) if isinstance(value, dict) else value for key, value in family.options.items()}
    assert main(["reproduce", "compressibility", *as_flags(options)]) in (1, 3)
    found = json.loads((tmp_path / "run" / "reproduction.json").read_text())
    jsonschema.validate(found, schema())
    assert disagreements(found) == []
    outcomes = {finding["rule"]: finding["outcome"] for finding in found["findings"]}
    assert {"finished": "PASS", "ratio": "PASS", "replay": "PASS", "reload": "PASS"}.items() <= outcomes.items()
    assert found["pipeline"] == name
    assert not found["embedded"]


@pytest.mark.parametrize(("name", "millions"), [("sd15", 859.5), ("sdxl", 2567.5)])
def test_random_pipelines_have_the_size_of_real_ones(name, millions):
    with torch.device("meta"):
        size = sum(value.numel() for value in random_pipeline.unet(name).parameters())
    assert size / 1e6 == pytest.approx(millions, rel=1e-3)
