"""A pipeline that is refused, and the plugin that makes it work: Z-Image with `cfg_normalization`."""

import sys
from pathlib import Path

import pytest
import torch
from support import zoo
from support.trainers import TINY, as_flags
from support.zoo_questions import (
    gradients_are_finite_differences,
    images_are_those_of_the_stock_pipeline,
    make_policy,
    ratios_are_one_before_any_update,
    rise_in_brightness,
    two_each,
)

from trainer_ext import guidance_from_plugins
from trainer_ext.cli import main
from trainer_ext.errors import GuidanceError
from trainer_ext.model.loading import load_pipeline
from trainer_ext.policy.pipeline import LogProbPipeline

PROJECT = Path(__file__).parents[2] / "examples" / "ddpo-zimage-guidance"

pytestmark = pytest.mark.skipif("ZImagePipeline" not in zoo.FAMILIES, reason="the installed diffusers has no Z-Image")


@pytest.fixture
def installed(install_example):
    install_example(PROJECT)


@pytest.fixture
def pipeline():
    torch.manual_seed(0)
    return load_pipeline(zoo.z_image())


def family(limit, **options):
    options = {**zoo.options(**zoo.SIZE, cfg_normalization=limit), **options}
    return zoo.Family("ZImagePipeline, limited", zoo.z_image, "zimage_norm_limited", options)


def test_without_the_plugin_it_is_refused_with_what_to_do(pipeline):
    with pytest.raises(GuidanceError, match=r"the best, cfg\w*, has a relative error of") as caught:
        make_policy(family(1.0), pipeline)
    assert "def rule(outputs, guidance_scale, arguments):" in str(caught.value)


@pytest.fixture
def limited(installed):
    """A limit that some predictions keep to by themselves and others do not."""
    return family(1.2, guidance_rules=guidance_from_plugins())


def test_the_limit_matters(limited, pipeline):
    """Or the tests below would say nothing."""
    policy = make_policy(limited, pipeline)
    trajectory = two_each(policy).trajectory
    free = make_policy(family(0.0, guidance_rules=guidance_from_plugins()), pipeline)
    rows, steps = torch.arange(4).repeat_interleave(4), torch.arange(4).repeat(4)
    with torch.no_grad():
        latents = trajectory.latents[rows, steps]
        pairs = [each.predict(trajectory.conditioning, latents, rows, steps) for each in (policy, free)]
    same = (pairs[0] == pairs[1]).flatten(1).all(1)
    assert 0 < same.sum() < len(same)


def test_ratios_are_one(limited, pipeline):
    ratios_are_one_before_any_update(limited, pipeline, torch.float32)


def test_ratios_are_one_in_bfloat16(limited, pipeline):
    ratios_are_one_before_any_update(limited, pipeline, torch.bfloat16)


@pytest.mark.parametrize("limit", [1.2, 1.0])
def test_gradients(installed, pipeline, limit):
    gradients_are_finite_differences(family(limit, guidance_rules=guidance_from_plugins()), pipeline)


def test_images_are_those_of_the_stock_pipeline(limited, pipeline):
    images_are_those_of_the_stock_pipeline(limited, pipeline)


@pytest.mark.usefixtures("installed")
def test_it_is_trained(pipeline, make_trainer):
    options = {**family(1.0).options, "guidance_rules": guidance_from_plugins(), "num_inference_steps": 4}
    assert rise_in_brightness(make_trainer, 16, model=pipeline, num_train_epochs=6, learning_rate=1e-2, **options) > 0.1


@pytest.mark.usefixtures("installed")
def test_it_is_listed(capsys):
    assert main(["rewards"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("zimage_norm_limited ")]
    assert line.split()[1:5] == ["guidance", "rule", "ddpo-zimage-guidance", "0.1.0"]
    assert any(line.split()[:4] == ["cfg_renormed", "guidance", "rule", "ddpo-plugins"] for line in lines)


@pytest.mark.usefixtures("installed")
def test_the_command_line_takes_it_without_being_told(pipeline, tmp_path, monkeypatch):
    pipeline.save_pretrained(tmp_path / "model")
    kwargs = '{"height": 32, "width": 32, "cfg_normalization": 1.0}'
    command = ["train", "--model_name_or_path", str(tmp_path / "model"), "--reward_funcs", "jpeg_compressibility"]
    command += [
        "--pipeline_kwargs",
        kwargs,
        *as_flags(TINY),
        "--guidance_scale",
        "5",
        "--output_dir",
        str(tmp_path / "run"),
    ]
    assert main(command) == 0
    assert (tmp_path / "run" / "pytorch_lora_weights.safetensors").is_file()


def test_the_doctor_finds_it_too(pipeline, tmp_path, capsys, request):
    pipeline.save_pretrained(tmp_path / "model")
    kwargs = '{"height": 32, "width": 32, "cfg_normalization": 1.0}'
    command = ["doctor", str(tmp_path / "model"), "--pipeline_kwargs", kwargs, "--num_inference_steps", "2"]
    command += ["--disable_tqdm", "true", "--use_cpu", "true"]
    assert main(command) == 1
    assert "cannot be trained. No guidance rule of" in capsys.readouterr().out
    request.getfixturevalue("installed")
    assert main(command) == 0
    assert "guidance    zimage_norm_limited of 2 denoiser outputs" in capsys.readouterr().out


def test_a_function_of_ones_own_does_the_same(pipeline, monkeypatch):
    monkeypatch.syspath_prepend(PROJECT)
    import ddpo_zimage_guidance

    options = {"num_inference_steps": 2, **family(1.0).options}
    policy = LogProbPipeline(pipeline, **options, guidance=ddpo_zimage_guidance.norm_limited)
    assert policy.findings.guidance.name == "custom"
    sys.modules.pop("ddpo_zimage_guidance")
