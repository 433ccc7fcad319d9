"""Adapters for other programs: the names that they know, and the pictures that they make."""

import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from support import trainers, zoo
from support.pipelines import tiny_pipeline

from trainer_ext.cli import main
from trainer_ext.errors import ConfigError
from trainer_ext.file_names import KOHYA_FILE, LORA_FILE
from trainer_ext.hub.cards.weights import Weights
from trainer_ext.hub.export import adapter_of, write_kohya
from trainer_ext.hub.kohya import write_kohya_file
from trainer_ext.policy.stock import stock_images
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.manifest import find_damage

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
CONFIGS = {
    "alpha is the rank": {"r": 4, "lora_alpha": 4},
    "another alpha": {"r": 4, "lora_alpha": 8},
    "rsLoRA": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "patterns": {"r": 4, "lora_alpha": 4, "rank_pattern": {"to_q": 2}, "alpha_pattern": {"attn1.to_k": 16}},
    "convolutions": {"r": 4, "lora_alpha": 8, "target_modules": [*ATTENTION, "conv1", "conv2", "proj_in", "conv_in"]},
}


def train_nothing(pipeline, folder, config):
    """Write the adapter of a run, with random matrices: one that was not trained changes no picture."""
    adapter = LoraConfig(**{"target_modules": ATTENTION, "init_lora_weights": "gaussian", **config})
    trainer = trainers.make_trainer(pipeline, folder, **{**trainers.TINY, "peft_config": adapter})
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    trainer.save_model()
    return trainer


def make_base():
    torch.manual_seed(0)
    return tiny_pipeline()


def images(pipeline):
    return stock_images(
        pipeline, ["a cat", "a dog"], [1, 2], 2, {"num_inference_steps": 3, "guidance_scale": 3.0}
    ).int()


def known_names(unet):
    """
    The names that ComfyUI looks up for a UNet, by its rule: each weight's layer with a prefix, and underlines for dots. A1111
    turns the same names into those of the original layout.
    """
    layers = [name for name, module in unet.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    return {"lora_unet_" + name.replace(".", "_") for name in layers}


def delta(tensors, layer):
    """What those programs add to a layer's weight, at strength 1 and without knowing any option of PEFT."""
    down, up, alpha = (tensors[f"{layer}.{name}"] for name in ("lora_down.weight", "lora_up.weight", "alpha"))
    product = (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])
    return product * alpha / len(down)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_kohyas_names_are_known_and_mean_our_weights(tmp_path, config):
    trainer = train_nothing(make_base(), tmp_path, config)
    write_kohya(adapter_of(tmp_path), tmp_path / "kohya.safetensors")
    tensors = load_file(tmp_path / "kohya.safetensors")
    layers = {name.partition(".")[0] for name in tensors}
    assert layers <= known_names(make_base().unet)
    trained = {name: module for name, module in trainer.model.base.named_modules() if isinstance(module, LoraLayer)}
    assert {"lora_unet_" + name.replace(".", "_") for name in trained} == layers
    for name, module in trained.items():
        found = delta(tensors, "lora_unet_" + name.replace(".", "_"))
        torch.testing.assert_close(found, module.get_delta_weight("default").detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "patterns"])  # diffusers mixes up their alphas
def test_kohyas_file_makes_our_pictures(tmp_path, name):
    pipeline = make_base()
    train_nothing(pipeline, tmp_path, CONFIGS[name])
    ours = images(pipeline)
    write_kohya(adapter_of(tmp_path), tmp_path / "kohya.safetensors")
    stock = make_base()
    before = images(stock)
    stock.load_lora_weights(tmp_path, weight_name="kohya.safetensors")
    assert (images(stock) - ours).abs().max() <= 1
    assert (before - ours).abs().float().mean() > 5


def test_a_transformer_keeps_its_names_and_needs_no_alpha(tmp_path):
    """Programs that read diffusers' names for transformers multiply by 1."""
    family = zoo.FAMILIES["StableDiffusion3Pipeline"]
    pipeline = family.make()
    trainer = train_nothing(pipeline, tmp_path, {"r": 4, "lora_alpha": 8})
    assert Weights.of(RunFolder(tmp_path)).kohya_file is None  # nothing more is pushed
    saved = load_file(tmp_path / LORA_FILE)
    write_kohya(adapter_of(tmp_path), tmp_path / "kohya.safetensors")
    exported = load_file(tmp_path / "kohya.safetensors")
    assert exported.keys() == saved.keys()
    assert {name.partition(".")[0] for name in exported} == {"transformer"}
    for name, module in trainer.model.base.named_modules():
        if f"transformer.{name}.lora_A.weight" in exported:
            down, up = (exported[f"transformer.{name}.{which}.weight"] for which in ("lora_A", "lora_B"))
            torch.testing.assert_close(up @ down, module.get_delta_weight("default").detach())


def test_what_other_programs_would_leave_out_is_refused(tmp_path):
    train_nothing(make_base(), tmp_path, {"r": 2, "use_dora": True})
    with pytest.raises(ConfigError, match="has DoRA's magnitudes, which other programs would leave out"):
        write_kohya(adapter_of(tmp_path), tmp_path / "kohya.safetensors")
    assert not (tmp_path / "kohya.safetensors").exists()


def test_a_push_leaves_out_what_other_programs_would_not_load(tmp_path, caplog):
    """Also what was exported of earlier weights."""
    train_nothing(make_base(), tmp_path, {"r": 2, "use_dora": True})
    (tmp_path / KOHYA_FILE).write_bytes(b"of earlier weights")
    write_kohya_file(Weights.of(RunFolder(tmp_path)))
    assert not (tmp_path / KOHYA_FILE).exists()
    assert "Nothing is pushed for ComfyUI and A1111: " in caplog.text


# ---- the command ----


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a pipeline in a folder, which left checkpoints."""
    folder = tmp_path_factory.mktemp("export")
    make_base().save_pretrained(folder / "base")
    saving = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-1, "num_train_epochs": 2}
    trainer = trainers.make_trainer(str(folder / "base"), folder / "run", **{**trainers.TINY, **saving})
    trainer.train()
    trainer.save_model()
    return folder / "run", images(trainer.policy.pipeline)


def test_the_command_writes_a_file_for_other_programs(run, capsys):
    folder, ours = run
    assert main(["export", str(folder)]) == 0
    file = folder / "pytorch_lora_weights_kohya.safetensors"
    assert capsys.readouterr().out.strip() == str(file)
    stock = make_base()
    stock.load_lora_weights(folder, weight_name=file.name)
    assert (images(stock) - ours).abs().max() <= 1


def test_the_command_merges_the_adapter_into_the_pipeline_that_was_trained(run, tmp_path):
    folder, ours = run
    assert main(["export", str(folder), "--format", "merged", "--output", str(tmp_path / "merged")]) == 0
    merged = DiffusionPipeline.from_pretrained(tmp_path / "merged")
    merged.set_progress_bar_config(disable=True)
    assert (images(merged) - ours).abs().max() <= 1
    assert (images(make_base()) - ours).abs().max() > 1


def test_a_run_that_did_not_end_gives_its_newest_checkpoint(run, tmp_path):
    folder, _ = run
    interrupted = shutil.copytree(folder, tmp_path / "run")
    (interrupted / LORA_FILE).unlink()
    assert (
        main(["export", str(interrupted), "--format", "diffusers", "--output", str(tmp_path / "lora.safetensors")]) == 0
    )
    newest = RunFolder(interrupted).newest() / LORA_FILE
    assert (tmp_path / "lora.safetensors").read_bytes() == newest.read_bytes()


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("kohya", "pytorch_lora_weights_kohya-checkpoint-1.safetensors"),
        ("merged", "merged-checkpoint-1"),
        ("diffusers", f"checkpoint-1/{LORA_FILE}"),
    ],
)
def test_a_checkpoint_is_exported_and_stays_whole(run, tmp_path, capsys, form, written):
    folder = shutil.copytree(run[0], tmp_path / "run")
    assert main(["export", str(folder / "checkpoint-1"), "--format", form]) == 0
    assert capsys.readouterr().out.strip() == str(folder / written)
    assert (folder / written).exists()
    assert find_damage(folder / "checkpoint-1") is None
    assert RunFolder(folder).checkpoints() == [folder / "checkpoint-1", folder / "checkpoint-2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere holds no pytorch_lora_weights.safetensors. Give the output folder of a finished run"),
        (["{run}", "--format", "gguf"], "--format is 'gguf'; it must be one of kohya, diffusers, merged."),
        (["{run}", "--format", "merged", "--output", "{run}"], "is not empty; give another --output"),
        (
            ["{run}", "--format", "merged", "--model_name_or_path", "embedded"],
            "does not fit StableDiffusionPipeline: its unet has no layer",
        ),
    ],
)
def test_mistakes(run, capsys, arguments, message):
    folder, _ = run
    assert main(["export", *(argument.format(run=folder) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_does_not_say_what_it_trained(run, tmp_path, capsys):
    folder, _ = run
    shutil.copy(folder / LORA_FILE, tmp_path)
    assert main(["export", str(tmp_path), "--format", "merged"]) == 2
    assert "does not say which pipeline it trained. Name it with --model_name_or_path" in capsys.readouterr().err
