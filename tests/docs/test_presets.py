"""Presets set what exists, are in the manual, and have the article's settings."""

from dataclasses import fields

import pytest
import yaml
from support.pages import ROOT, spans, table

from ddpo_plugins import load_catalogue
from trainer_ext import DDPOConfig
from trainer_ext.cli.options import LoraOptions, RunOptions
from trainer_ext.cli.parse import load_preset
from trainer_ext.options import DDPOOptions, TrainerDefaults

PRESETS = ROOT / "trainer_ext" / "presets"
NAMES = sorted(file.relative_to(PRESETS).with_suffix("").as_posix() for file in PRESETS.rglob("*.yaml"))
ROWS = table("docs/quickstart.md", "preset | reward | prompts")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_sets_what_exists(name):
    kinds = (DDPOOptions, TrainerDefaults, RunOptions, LoraOptions)
    known = {field.name for kind in kinds for field in fields(kind)} | {
        "max_grad_norm",
        "adam_beta2",
        "adam_epsilon",
        "eval_strategy",
        "eval_steps",
        "bf16",
    }
    assert yaml.safe_load((PRESETS / f"{name}.yaml").read_text()).keys() <= known


def test_the_table_of_presets_is_complete_and_true():
    assert sorted(name for row in ROWS for name in spans(row[0])) == NAMES
    for named, reward, prompts in ROWS:
        first, *_ = spans(named)
        if reward.startswith("`"):
            preset = load_preset(["--preset", first])
            assert (preset["reward_funcs"], preset["prompts"]) == (spans(reward)[:1], spans(prompts)[0])


TASKS = ["compressibility", "incompressibility", "aesthetic", "alignment", "counting"]


@pytest.mark.parametrize("task", TASKS)
def test_presets_of_cards_and_budgets_fit_every_task(task, tmp_path):
    """Half precision needs as many rows in training as in sampling; an hour's rollouts are whole updates, also a task's own."""
    for size in (8, 16, 24, 80):
        for budget in ([], ["budget/1h"], ["budget/8h"]):
            preset = load_preset(["--preset", f"lora/{task}", f"memory/{size}gb", *budget])
            own = {key: value for key, value in preset.items() if key in DDPOConfig.__dataclass_fields__}
            config = DDPOConfig(**own, output_dir=str(tmp_path), use_cpu=True)
            assert (config.bf16, config.rows_per_forward) == (True, 2 * config.rollout_batch_size)
            assert config.updates_per_rollout == (4 if budget == ["budget/1h"] or "compress" in task else 2)


def test_presets_of_the_embedded_model_stand_over_it():
    base = load_preset(["--preset", "embedded"])
    for names in (["embedded/sf"], ["embedded", "embedded/sf"]):
        assert load_preset(["--preset", *names]) == {**base, "algorithm": "ddpo_sf", "gradient_accumulation_steps": 8}
    # a flag's place does not matter, and what comes later wins
    assert load_preset(["--preset", "embedded/sf", "embedded"])["gradient_accumulation_steps"] == 1
    assert "prompts" not in load_preset(["--preset", "paper/sf"])


def test_every_task_is_evaluated_where_it_is_not_trained():
    """By other rewards, on other prompts, with detectors: what a verdict needs."""
    catalogue = load_catalogue()
    for name in NAMES:
        preset = load_preset(["--preset", name])
        if "reward_funcs" in preset:
            assert preset["eval_reward_funcs"], name
            assert not set(preset["eval_reward_funcs"]) & set(preset["reward_funcs"]), name
            assert set(preset["eval_reward_funcs"]) <= set(catalogue.rewards), name
            unseen = set(preset["eval_prompts"]) - {preset["prompts"]}
            assert unseen, name
            assert unseen <= set(catalogue.prompt_sets), name
            assert set(preset["detectors"]) <= set(catalogue.detectors), name
            assert preset["eval_strategy"] == "steps"
            assert preset["eval_steps"] == preset["save_steps"], "a checkpoint for each evaluation"


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
    sets = {"alignment": "animal_activities", "aesthetic": "animals", "counting": "counting"}
    assert defaults["prompts"] == sets.get(task.split("/")[1], "imagenet_animals")
    updates = {None: 4 if paper or jpeg else 2, "sf": 1}.get(overlay, 400)
    assert config.updates_per_rollout == updates
    assert defaults["model_name_or_path"] == "CompVis/stable-diffusion-v1-4"
    of_questions = task in ("lora/alignment", "lora/counting")
    rollout = 288 if of_questions and overlay is None else 256
    images = config.num_images_per_rollout * config.num_train_epochs
    assert images == rollout * (100 if jpeg and not paper and overlay in (None, "sf") else 200)
