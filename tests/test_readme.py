"""What the README says is so."""

import inspect
import re
import shlex
from dataclasses import fields
from pathlib import Path

import diffusers
import measure_zoo
import pytest
import yaml
import zoo

from ddpo_plugins import hookspecs, load_catalogue
from trainer_ext import DDPOConfig
from trainer_ext.cli import COMMANDS, main
from trainer_ext.cli.parse import load_preset
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


def test_the_table_of_rewards_has_their_revisions():
    (section,) = re.findall(r"^## Rewards\n.*?(?=^## )", README, flags=re.DOTALL | re.MULTILINE)
    rows = [row for row in section.splitlines() if row.startswith("| `")]
    for row in rows:
        for name in re.findall(r"`(\w+)`", row.split("|")[1]):
            parameters = inspect.signature(load_catalogue().rewards[name].spec.factory).parameters
            revisions = {value.default for key, value in parameters.items() if "revision" in key} - {"main"}
            said = set(re.findall(r"at `(\w{8})`", row))
            assert said == ({revision[:8] for revision in revisions} if "not pinned" not in row else set()), name
    assert len(rows) >= 6


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


def test_the_evaluation_of_the_readme_runs(tmp_path, monkeypatch):
    (evaluation,) = [block for block in blocks("python") if "eval_reward_funcs=" in block]
    monkeypatch.chdir(tmp_path)
    names = {}
    for start in ("from datasets import Dataset", "from trainer_ext import prompts_from_plugin"):  # what it builds on
        (script,) = [block for block in blocks("python") if block.startswith(start)]
        exec(script.split("trainer = ")[0], names)
    two = "prompts_from_plugin('animals').select(range(2))"
    small = (
        "num_train_epochs=2, num_images_per_rollout=2, rollout_batch_size=2, per_device_train_batch_size=2, guidance_scale=1.0, "
        "gradient_accumulation_steps=1, num_inference_steps=2, num_sample_images=0, disable_tqdm=True, use_cpu=True,"
    )
    script = evaluation.replace('prompts_from_plugin("animals")', two).replace('prompts_from_plugin("counting")', two)
    exec(script.replace('output_dir="evaluated",', f'output_dir="evaluated", {small}'), names)
    names["trainer"].train()
    logs = [log for log in names["trainer"].state.log_history if "eval_unseen_rewards/warmth/mean" in log]
    assert [log["epoch"] for log in logs] == [1, 2]
    best = max(log["eval_unseen_rewards/warmth/mean"] for log in logs)
    assert names["trainer"].state.best_metric == best


@pytest.mark.skipif(not hasattr(diffusers, "ZImagePipeline"), reason="the installed diffusers has no Z-Image")
def test_the_guidance_rule_of_the_readme_is_z_images(tmp_path):
    """By a pipeline that it was not taken from word for word: its guidance, with a limit of 1."""
    import torch
    import zoo

    from trainer_ext.errors import GuidanceError
    from trainer_ext.model.loading import load_pipeline
    from trainer_ext.policy.pipeline import LogProbPipeline

    (script,) = [block for block in blocks("python") if "def norm_limited" in block]
    torch.manual_seed(0)
    pipeline = load_pipeline(zoo.z_image())
    names = {}
    exec(script.split("policy = ")[0], names)
    options = {"guidance_scale": 4.0, "pipeline_kwargs": {**zoo.SIZE, "cfg_normalization": 1.0}}
    with pytest.raises(GuidanceError):
        LogProbPipeline(pipeline, 4, **options)
    assert LogProbPipeline(pipeline, 4, **options, guidance=names["norm_limited"]).findings.error < 1e-6


def test_what_the_doctor_says_of_the_embedded_model(capsys):
    """But for time and memory, and the two parts of the pipeline that the README leaves out."""
    assert main(["doctor", "embedded", "--guidance_scale", "5", "--disable_tqdm", "true", "--use_cpu", "true"]) == 0
    said = capsys.readouterr().out.splitlines()
    (block,) = [block for block in README.split("```") if block.startswith("\npipeline    ")]
    for line, expected in zip(said, block.strip().splitlines(), strict=True):
        if line.split()[0] not in ("pipeline", "replay", "cost"):
            assert line == expected
        assert line.split(" ")[0] == expected.split(" ")[0]


def test_the_table_of_pipelines_is_the_zoo():
    (table,) = re.findall(rf"{re.escape(measure_zoo.HEADER)}\n\|[-|]+\n((?:\|.*\n)+)", README)
    rows = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert {name: rule for name, rule, *_ in rows} == {family.name: family.guidance for family in zoo.KNOWN}
    for name, _, same, mixed, bfloat16 in rows:
        assert float(same) == float(bfloat16) == 0, name
        assert float(mixed) < 1e-5, name
    again = measure_zoo.row(zoo.FAMILIES["StableDiffusion3Pipeline"]).split("|")
    assert any(line.split("|")[1:3] == again[1:3] for line in table.splitlines())


def test_commands_exist():
    commands = [
        shlex.split(line, comments=True) for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()
    ]
    names = {words[1] for words in commands if words and words[0] == "ddpo"}
    assert names == set(COMMANDS)
    for script in ("examples/main_job", ".ci/test"):
        assert (ROOT / script).is_file()
        assert script in README


PRESETS = ROOT / "trainer_ext" / "presets"


def test_presets_set_what_exists():
    from trainer_ext.cli.options import LoraOptions, RunOptions

    kinds = (DDPOOptions, TrainerDefaults, RunOptions, LoraOptions)
    known = {field.name for kind in kinds for field in fields(kind)} | {"max_grad_norm"}
    for file in PRESETS.rglob("*.yaml"):
        name = file.relative_to(PRESETS).with_suffix("").as_posix()
        assert yaml.safe_load(file.read_text()).keys() <= known, name
        assert f"`{name}`" in README


TASKS = ["compressibility", "incompressibility", "aesthetic", "alignment"]


@pytest.mark.parametrize("overlay", [None, "sf", "rwr", "sparse_rwr"])
@pytest.mark.parametrize("task", [f"{kind}/{task}" for kind in ("paper", "lora") for task in TASKS])
def test_presets_are_the_articles_settings(task, overlay, tmp_path):
    """Against facts that are written down here once more: images, updates and rollouts of each."""
    presets = [task] if overlay is None else [task, f"paper/{overlay}"]
    defaults = load_preset(["--preset", *presets])
    own = {key: value for key, value in defaults.items() if key in DDPOConfig.__dataclass_fields__}
    config = DDPOConfig(**own, output_dir=str(tmp_path), use_cpu=True)
    paper, jpeg = task.startswith("paper"), "compress" in task
    assert (config.full_finetuning, config.learning_rate) == ((True, 1e-5) if paper else (False, 3e-4))
    assert (config.advantage_clip, config.clip_range, config.weight_decay) == (10 if paper else 5, 1e-4, 1e-4)
    assert (config.stat_buffer_size, config.stat_min_count) == (16 if jpeg and not paper else 32, 16)
    assert (config.num_inference_steps, config.guidance_scale, config.eta, config.max_grad_norm) == (50, 5, 1, 1)
    assert defaults["prompts"] == {"alignment": "animal_activities", "aesthetic": "animals"}.get(
        task.split("/")[1], "imagenet_animals"
    )
    updates = {None: 4 if paper or jpeg else 2, "sf": 1}.get(overlay, 400)
    assert config.updates_per_rollout == updates
    images = config.num_images_per_rollout * config.num_train_epochs
    assert images == 256 * (100 if jpeg and not paper and overlay in (None, "sf") else 200)
