"""What the README says is so."""

import inspect
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from ddpo_plugins import hookspecs
from trainer_ext.cli import COMMANDS
from trainer_ext.options import DDPOOptions, TrainerDefaults

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("name", hookspecs.HOOK_NAMES)
def test_hooks_have_the_signature_of_the_readme(name):
    assert f"`{name}{inspect.signature(getattr(hookspecs, name))}`".replace("'", "") in README


def test_the_table_of_options_is_complete_and_true():
    (section,) = re.findall(r"^## Options\n.*?(?=^## )", README, flags=re.DOTALL | re.MULTILINE)
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", section, flags=re.MULTILINE))
    options = {field.name: field.default for kind in (DDPOOptions, TrainerDefaults) for field in fields(kind)}
    assert {name: str(default) for name, default in options.items()} == rows


def test_the_plugin_of_the_readme_is_the_example():
    example = (ROOT / "examples" / "ddpo-redness" / "ddpo_redness.py").read_text()
    assert any(block.strip() == example.strip() for block in blocks("python"))


@pytest.mark.parametrize("block", blocks("python"))
def test_python_is_python(block):
    compile(block, "README", "exec")


def test_the_training_script_runs(tmp_path, monkeypatch, tiny_pipeline):
    """The script of the README, with a smaller model and fewer images."""
    (script,) = [block for block in blocks("python") if "trainer.save_model()" in block]
    monkeypatch.chdir(tmp_path)
    small = (
        "num_train_epochs=1, num_images_per_rollout=4, rollout_batch_size=4, per_device_train_batch_size=4, "
        "gradient_accumulation_steps=1, num_inference_steps=2, num_sample_images=2, disable_tqdm=True, use_cpu=True, bf16=True"
    )
    names = {"tiny_pipeline": tiny_pipeline}
    exec(
        script.replace('"stable-diffusion-v1-5/stable-diffusion-v1-5"', "tiny_pipeline()").replace("bf16=True", small),
        names,
    )
    assert (tmp_path / "warm" / "pytorch_lora_weights.safetensors").is_file()


def test_commands_exist():
    commands = [
        shlex.split(line, comments=True) for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()
    ]
    names = {words[1] for words in commands if words and words[0] == "ddpo"}
    assert names == set(COMMANDS)
    for script in ("examples/main_job", ".ci/test"):
        assert (ROOT / script).is_file()
        assert script in README


def test_presets_set_what_exists():
    from trainer_ext.cli.options import LoraOptions, RunOptions

    known = {field.name for kind in (DDPOOptions, TrainerDefaults, RunOptions, LoraOptions) for field in fields(kind)}
    for file in (ROOT / "trainer_ext" / "presets").rglob("*.yaml"):
        assert yaml.safe_load(file.read_text()).keys() <= known
