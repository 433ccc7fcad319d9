"""The pipelines that people use, with random weights at reduced size, through the whole kit: they need not learn anything."""

import json

import jsonschema
import pytest
import random_pipeline
import torch
from support.trainers import as_flags

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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("sd15", "StableDiffusionPipeline", marks=pytest.mark.full),
        pytest.param("sdxl", "StableDiffusionXLPipeline", marks=pytest.mark.full),
        ("sd35", "StableDiffusion3Pipeline"),
        pytest.param("flux", "FluxPipeline", marks=pytest.mark.full),
    ],
)
def test_the_whole_kit(name, kind, tmp_path, capsys):
    random_pipeline.main([name, str(tmp_path / "model")])
    assert f"--model {tmp_path / 'model'}" in capsys.readouterr().out
    given = random_pipeline.FAMILIES[name].options_of("small")
    options = {**given, **SMALL, "model": tmp_path / "model", "output_dir": tmp_path / "run"}
    assert main(["reproduce", "compressibility", *as_flags(options)]) in (1, 3)
    found = json.loads((tmp_path / "run" / "reproduction.json").read_text())
    jsonschema.validate(found, schema())
    assert disagreements(found) == []
    outcomes = {finding["rule"]: finding["outcome"] for finding in found["findings"]}
    assert {"finished": "PASS", "ratio": "PASS", "replay": "PASS", "reload": "PASS"}.items() <= outcomes.items()
    assert found["evidence"]["reload"] == {**found["evidence"]["reload"], "n": 2, "differing": 0}
    assert found["pipeline"] == kind
    assert not found["embedded"]


@pytest.mark.parametrize(("name", "millions"), [("sd15", 859.5), ("sdxl", 2567.5), ("sd35", 2469.7), ("flux", 11901.4)])
def test_random_pipelines_have_the_size_of_real_ones(name, millions):
    with torch.device("meta"):
        size = sum(value.numel() for value in random_pipeline.denoiser(name, "full").state_dict().values())
    assert size / 1e6 == pytest.approx(millions, rel=1e-3)
