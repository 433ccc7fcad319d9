"""`ddpo doctor`: what it says is so."""

import json
import time

import psutil
import pytest
import torch
from diffusers import DDIMScheduler
from peft import LoraConfig
from support import zoo

from trainer_ext import DDPOConfig
from trainer_ext.cli import main
from trainer_ext.doctor.examine import examine
from trainer_ext.model.loading import load_pipeline

QUICK = ["--num_inference_steps", "4", "--use_cpu", "true", "--disable_tqdm", "true"]


@pytest.fixture
def config(tmp_path):
    def make(**options):
        options = {"num_inference_steps": 4, "use_cpu": True, "disable_tqdm": True, **options}
        return DDPOConfig(output_dir=str(tmp_path / "run"), **options)

    return make


@pytest.fixture
def folder(tiny_pipeline, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def heaviest_step(scheduler, num_steps):
    """Of DDIM with eta 1 and epsilon prediction, from the article's equation 12: the largest |b| / std, and its step."""
    scheduler.set_timesteps(num_steps)
    weights = []
    for timestep in scheduler.timesteps.tolist():
        before = timestep - scheduler.config.num_train_timesteps // num_steps
        alpha = scheduler.alphas_cumprod[timestep].item()
        alpha_before = (scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod).item()
        variance = (1 - alpha_before) / (1 - alpha) * (1 - alpha / alpha_before)
        b = (1 - alpha_before - variance) ** 0.5 - (alpha_before * (1 - alpha) / alpha) ** 0.5
        weights.append(abs(b) / variance**0.5)
    return max(weights), weights.index(max(weights))


def test_it_says_what_was_found(folder, tiny_pipeline, capsys):
    assert main(["doctor", folder, *QUICK]) == 0
    lines = capsys.readouterr().out.splitlines()
    pipeline = tiny_pipeline()
    size = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    weight, step = heaviest_step(DDIMScheduler.from_config(pipeline.scheduler.config), 4)
    for expected in (
        "pipeline    StableDiffusionPipeline (",
        f"denoiser    unet: UNet2DConditionModel, {size / 1e6:.3g} M parameters, float32",
        f"sampler     ddim: 4 steps, 4 with noise (0 to 3), largest |b| / std {weight:.3g} in step {step}",
        "guidance    cfg of 2 denoiser outputs, conditional last, scale 5; off by 0.0e+00",
        "adapter     8 layers (to_k, to_out.0, to_q, to_v), ",
        "call        sample 4x8x8 float32, timestep; 2 row(s) an image",
        "            per image: encoder_hidden_states; shared: return_dict",
        "images      32 x 32; several of a prompt by num_images_per_prompt",
        "replay      |ratio - 1| 0.0e+00 as sampled, ",
        "gradient    reaches 16 of 16 trained tensors",
        "cost        ",
        "verdict     can be trained",
    ):
        assert any(line.startswith(expected) for line in lines), expected


def test_for_machines_it_says_the_same(folder, capsys):
    start = time.perf_counter()
    assert main(["doctor", folder, *QUICK, "--json", "--lora_r", "2", "--guidance_scale", "1"]) == 0
    seconds = time.perf_counter() - start
    found = json.loads(capsys.readouterr().out)
    assert (found["can_be_trained"], found["refusal"]) == (True, None)
    assert found["guidance"][0]["rule"] == "none"
    assert found["call"][0]["copies"] == 1
    assert found["adapter"][0]["files"] == ["pytorch_lora_weights.safetensors"]
    assert found["adapter"][0]["num_layers"] == 8
    assert found["replay"][0]["same_layout"] == 0
    assert 0 <= found["replay"][0]["mixed_steps"] < 1e-5
    cost = found["cost"][0]
    assert 0 < 2 * cost["sampling_seconds"] + 3 * cost["training_seconds"] < seconds
    assert psutil.Process().memory_info().rss < 1.2 * cost["peak_bytes"]
    assert cost["peak_bytes"] < psutil.virtual_memory().total


def test_progress_is_shown(folder, capsys):
    assert main(["doctor", folder, *QUICK[:4]]) == 0
    assert "two images:" in capsys.readouterr().err


def test_a_refusal_says_why_after_what_was_found(folder, capsys):
    assert main(["doctor", folder, *QUICK, "--guidance", "cfg_from_cond"]) == 1
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines()[:3]] == ["pipeline", "denoiser", "verdict"]
    assert "verdict     cannot be trained. No guidance rule of cfg_from_cond explains" in text
    assert "def rule(outputs, guidance_scale, arguments):" in text
    assert main(["doctor", folder, *QUICK, "--guidance", "cfg_from_cond", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["can_be_trained"] is False
    assert found["refusal"].startswith("No guidance rule of cfg_from_cond")
    assert found["pipeline"][0]["pipeline"] == "StableDiffusionPipeline"
    assert "sampler" not in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["./nowhere"], "No pipeline could be loaded from './nowhere'"),
        (["embedded", "--eta", "0"], "eta is 0.0; it must be in (0, 1]"),
        (["embedded", "--guidance_scal", "2"], "--guidance_scal: did you mean --guidance_scale"),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert main(["doctor", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_it_takes_the_config_file_of_a_training_run(folder, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(
        f"model_name_or_path: {folder}\nreward_funcs: [jpeg_compressibility]\nnum_inference_steps: 3\nuse_cpu: true\n"
        "lora_target_modules: [to_q]\npipeline_kwargs:\n  guidance_rescale: 0.5\n"
    )
    assert main(["doctor", "--config", str(file), "--disable_tqdm", "true", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sampler"][0]["num_steps"] == 3
    assert found["adapter"][0]["targets"] == ["to_q"]
    assert found["guidance"][0]["rule"] == "cfg_rescaled"


@pytest.mark.skipif("ZImagePipeline" not in zoo.FAMILIES, reason="the installed diffusers has no Z-Image")
def test_arguments_that_are_lists(config):
    lists = examine(load_pipeline(zoo.z_image()), config(pipeline_kwargs=zoo.SIZE)).to_dict()
    assert lists["call"][0]["lists"] == ("cap_feats", "x")
    assert lists["call"][0]["row_shape"] == (4, 1, 4, 4)


def test_arguments_that_are_nested(config):
    nested = examine(load_pipeline(zoo.stable_diffusion_xl()), config()).to_dict()
    assert set(nested["call"][0]["per_image"]) == {
        "encoder_hidden_states",
        "added_cond_kwargs.text_embeds",
        "added_cond_kwargs.time_ids",
    }


def test_half_precision(tiny_pipeline, config, folder):
    found = examine(folder, config(bf16=True)).to_dict()
    assert found["denoiser"][0]["dtype"] == found["call"][0]["dtype"] == "bfloat16"
    assert found["replay"][0]["same_layout"] == 0


def test_all_weights(tiny_pipeline, config):
    pipeline = tiny_pipeline()
    size = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    found = examine(pipeline, config(full_finetuning=True)).to_dict()
    assert found["adapter"][0]["num_parameters"] == size
    assert found["adapter"][0]["loaded_by"] == "StableDiffusionPipeline.from_pretrained"
    assert found["gradient"][0]["num_tensors"] == len(list(pipeline.unet.parameters()))


def test_layers_that_learn_nothing_are_named(tiny_pipeline, config, capsys):
    from trainer_ext.cli.doctor import print_facts

    pipeline = tiny_pipeline()
    pipeline.unet.idle = torch.nn.Linear(4, 4)
    report = examine(pipeline, config(), LoraConfig(target_modules=["to_q", "idle"]), on_found=print_facts)
    assert report.can_be_trained
    (gradient,) = report.to_dict()["gradient"]
    assert len(gradient["without"]) == 2
    assert all("idle.lora_" in name for name in gradient["without"])
    assert f"gradient    reaches {gradient['num_tensors'] - 2} of {gradient['num_tensors']} trained tensors\n" in (
        capsys.readouterr().out
    )


def test_an_adapter_that_learns_nothing_is_refused(tiny_pipeline, config):
    pipeline = tiny_pipeline()
    pipeline.unet.idle = torch.nn.Linear(4, 4)
    report = examine(pipeline, config(), LoraConfig(target_modules=["idle"]))
    assert report.refusal.startswith("No gradient reaches the trained weights")


def test_gradients_that_are_not_finite_are_refused(tiny_pipeline, config):
    pipeline = tiny_pipeline()
    pipeline.unet.conv_out.register_full_backward_hook(lambda module, into, out: (into[0] * float("nan"), *into[1:]))
    report = examine(pipeline, config())
    assert "of 16 trained tensors is not finite" in report.refusal


def test_what_is_not_deterministic_is_refused(tiny_pipeline, config):
    pipeline = tiny_pipeline()
    pipeline.unet.conv_out.register_forward_hook(lambda module, given, made: made + 0.1 * torch.randn_like(made))
    report = examine(pipeline, config())
    assert "before any update; it must be 0" in report.refusal
    assert "replay" not in report.to_dict()


def test_a_pipeline_that_fails_later_is_refused(tiny_pipeline, config):
    pipeline = tiny_pipeline()
    pipeline.vae.decoder = None
    report = examine(pipeline, config())
    assert "StableDiffusionPipeline failed while it made 2 images: TypeError" in report.refusal
    assert "guidance" in report.to_dict()


def test_parts_are_reported_as_they_are_found(tiny_pipeline, config):
    seen, steps = [], []
    report = examine(tiny_pipeline(), config(), on_found=seen.append, on_step=steps.append)
    assert tuple(seen) == report.facts
    assert steps == [0, 1, 2, 3]
